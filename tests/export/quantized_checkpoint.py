"""Quantized versions of a checkpoint folder, by the arithmetic of the libraries that write them.

Every writer rounds to the nearest code, stores what the library stores, and returns the weights that it dequantizes to,
computed from the codes before they are packed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoint import write_json

FP8_LARGEST = 448.0
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """What is stored for a matrix, by the end of the names, and the matrix that it stands for."""

    stored: Mapping[str, torch.Tensor]
    values: torch.Tensor
    """float32 [out, in]"""


def quantize_folder(
    folder: Path,
    settings: Mapping[str, Any],
    quantize: Callable[[torch.Tensor], QuantizedMatrix],
    *,
    skip: tuple[str, ...] = (),
    dtype: torch.dtype = torch.bfloat16,
) -> Tensors:
    """Quantize the projections of a checkpoint in its folder and return the dequantized tensors.

    Tensors whose names have one of `skip` in them, embeddings, norms and heads are stored in `dtype`.
    """
    file = folder / "model.safetensors"
    stored: Tensors = {}
    plain: Tensors = {}
    for name, tensor in load_file(file).items():
        if "_proj.weight" in name and not any(part in name for part in skip):
            matrix = quantize(tensor.to(torch.float32))
            plain[name] = matrix.values
            stored |= {name.removesuffix(".weight") + end: part.contiguous() for end, part in matrix.stored.items()}
        else:
            stored[name] = tensor.to(dtype)
            plain[name] = stored[name].to(torch.float32)
    save_file(stored, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", config | {"quantization_config": dict(settings)})
    return plain


def fp8_settings(block: tuple[int, int] | None, **settings: Any) -> dict[str, Any]:
    """Return the settings that transformers writes for FP8."""
    stated = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
    return stated | {"weight_block_size": None if block is None else list(block)} | settings


def fp8_blocks(block: tuple[int, int]) -> Callable[[torch.Tensor], QuantizedMatrix]:
    """Return the quantization with a scale for each block; those at the edges may be smaller."""

    def quantize(matrix: torch.Tensor) -> QuantizedMatrix:
        grid = [-(-size // step) for size, step in zip(matrix.shape, block, strict=True)]
        scales, values = torch.empty(*grid), torch.empty_like(matrix)
        codes = torch.empty(matrix.shape, dtype=torch.float8_e4m3fn)
        for row in range(grid[0]):
            for column in range(grid[1]):
                part = (
                    slice(row * block[0], (row + 1) * block[0]),
                    slice(column * block[1], (column + 1) * block[1]),
                )
                scale = matrix[part].abs().max() / FP8_LARGEST
                codes[part] = (matrix[part] / scale).to(torch.float8_e4m3fn)
                values[part] = codes[part].to(torch.float32) * scale
                scales[row, column] = scale
        return QuantizedMatrix({".weight": codes, ".weight_scale_inv": scales}, values)

    return quantize


def compressed_settings(kind: str) -> dict[str, Any]:
    """Return the settings that compressed-tensors writes for `float` or `int` codes."""
    weights = {"num_bits": 8, "type": kind, "strategy": "channel", "symmetric": True, "dynamic": False}
    return {
        "quant_method": "compressed-tensors",
        "format": f"{kind}-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }


def scaled_rows(dtype: torch.dtype, scales: str) -> Callable[[torch.Tensor], QuantizedMatrix]:
    """Return the quantization to 8-bit codes with a scale for each row (`channel`) or for the matrix (`tensor`)."""
    largest = FP8_LARGEST if dtype.is_floating_point else 127.0

    def quantize(matrix: torch.Tensor) -> QuantizedMatrix:
        peak = matrix.abs().amax(dim=1, keepdim=True) if scales == "channel" else matrix.abs().max().reshape(1)
        scale = (peak / largest).to(torch.bfloat16)
        steps = (matrix / scale.float()).clamp(-largest, largest)
        codes = (steps if dtype.is_floating_point else steps.round()).to(dtype)
        stored = {".weight": codes, ".weight_scale": scale, ".input_scale": torch.ones(1)}
        return QuantizedMatrix(stored, codes.float() * scale.float())

    return quantize


def packed_settings(bits: int) -> dict[str, Any]:
    """Return the settings that compressed-tensors writes for packed codes."""
    weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
    settings = compressed_settings("int")
    return settings | {"format": "pack-quantized", "config_groups": {"group_0": {"weights": weights}}}


def packed_rows(bits: int) -> Callable[[torch.Tensor], QuantizedMatrix]:
    """Return the symmetric quantization in groups of 32 inputs; a word has the codes of neighboring inputs."""
    largest = (1 << bits - 1) - 1

    def quantize(matrix: torch.Tensor) -> QuantizedMatrix:
        rows, columns = matrix.shape
        scale = (matrix.reshape(rows, -1, 32).abs().amax(2) / largest).to(torch.bfloat16)
        of_column = scale.float().repeat_interleave(32, dim=1)
        codes = (matrix / of_column).round().clamp(-largest - 1, largest).int()
        words = pack_words((codes + (1 << bits - 1)).reshape(rows, -1, 32 // bits), bits)
        shape = torch.tensor([rows, columns])
        stored = {".weight_packed": words, ".weight_shape": shape, ".weight_scale": scale}
        return QuantizedMatrix(stored, codes.float() * of_column)

    return quantize


def group_codes(
    matrix: torch.Tensor, bits: int, groups: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return codes [in, out], zero points and scales [groups, out] of an asymmetric quantization.

    `groups` [in] has the group of each input.
    """
    largest, columns = (1 << bits) - 1, matrix.T
    count = int(groups.max()) + 1
    low = torch.stack([columns[groups == group].amin(0).clamp(max=0) for group in range(count)])
    high = torch.stack([columns[groups == group].amax(0).clamp(min=0) for group in range(count)])
    scales = ((high - low) / largest).to(torch.float16)
    zeros = (-low / scales.float()).round().clamp(0, largest)
    codes = (columns / scales.float()[groups] + zeros[groups]).round().clamp(0, largest)
    return codes.int(), zeros.int(), scales


def pack_words(fields: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack fields [..., 32 / bits] into int32 [...], the first into the lowest bits."""
    shifts = torch.arange(0, 32, bits)
    words = ((fields.long() & ((1 << bits) - 1)) << shifts).sum(-1)
    return words.to(torch.int32)


def gptq_settings(bits: int, group: int, **settings: Any) -> dict[str, Any]:
    """Return the settings that GPTQ's libraries write."""
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": False} | settings


def gptq(
    bits: int, group: int, *, stored_minus: int = 1, shuffle: bool = False
) -> Callable[[torch.Tensor], QuantizedMatrix]:
    """Return GPTQ's packing: codes along the inputs, zero points less `stored_minus`.

    With `shuffle` the inputs of a group are not neighbors, as with `desc_act`.
    """

    def quantize(matrix: torch.Tensor) -> QuantizedMatrix:
        out, inputs = matrix.shape
        count = 32 // bits
        groups = torch.arange(inputs) // (inputs if group == -1 else group)
        if shuffle:
            groups = groups[torch.randperm(inputs, generator=torch.Generator().manual_seed(3))]
        codes, zeros, scales = group_codes(matrix, bits, groups)
        words = pack_words(codes.reshape(inputs // count, count, out).transpose(1, 2), bits)
        # a zero point of 0 borrows from its neighbors, as in GPTQModel
        fields = zeros.reshape(len(zeros), out // count, count).long() - stored_minus
        packed_zeros = (fields << torch.arange(0, 32, bits)).sum(-1)
        values = ((codes - zeros[groups]).float() * scales.float()[groups]).T.contiguous()
        stored = {".qweight": words, ".qzeros": packed_zeros.to(torch.int32), ".scales": scales}
        return QuantizedMatrix(stored | {".g_idx": groups.int()}, values)

    return quantize


def awq_settings(group: int, **settings: Any) -> dict[str, Any]:
    """Return the settings that AutoAWQ writes."""
    stated = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}
    return stated | settings


def awq(group: int) -> Callable[[torch.Tensor], QuantizedMatrix]:
    """Return AutoAWQ's packing `gemm`: codes along the outputs, eight of them in the order 0 2 4 6 1 3 5 7."""

    def quantize(matrix: torch.Tensor) -> QuantizedMatrix:
        out, inputs = matrix.shape
        groups = torch.arange(inputs) // group
        codes, zeros, scales = group_codes(matrix, 4, groups)
        order = torch.tensor(_AWQ_ORDER)
        words, packed_zeros = (
            pack_words(fields.reshape(len(fields), out // 8, 8)[:, :, order], 4) for fields in (codes, zeros)
        )
        values = ((codes - zeros[groups]).float() * scales.float()[groups]).T.contiguous()
        return QuantizedMatrix({".qweight": words, ".qzeros": packed_zeros, ".scales": scales}, values)

    return quantize
