"""Codes with a scale for each block of rows × columns: FP8, and compressed-tensors.

    W[o, i] = code[o, i] · scale[o // rows, i // columns]

The product is rounded once, to fp32. Blocks at the edges of a matrix may be smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ...errors import list_keys
from ..stated_numbers import shorten
from ..weights import CODES, LazyTensor
from .quantization import Quantization
from .words import WORD_BITS, unpack_words

Shape = tuple[int, ...]
_UNUSED = (".input_scale", ".activation_scale")
"""Ends of the names of activations' scales, on which the weights do not depend."""


def dequantize_fp8(quantization: Quantization) -> dict[str, LazyTensor]:
    """Dequantize each `weight` by `weight_scale_inv`, which has a scale for each block of `weight_block_size`."""
    stated = quantization.settings.get("weight_block_size")
    if stated is None:
        return _dequantize(quantization, ".weight_scale_inv", lambda weight, _: weight)
    if not isinstance(stated, list) or len(stated) != 2 or not all(type(size) is int and size > 0 for size in stated):
        raise quantization.refuse(f"weight_block_size is {shorten(stated)}, not two positive integers")
    return _dequantize(quantization, ".weight_scale_inv", lambda *_: tuple(stated))


def has_whole_blocks(quantization: Quantization) -> bool:
    """Whether no block of an FP8 checkpoint is smaller; transformers would divide such a matrix into equal blocks."""
    block = quantization.settings.get("weight_block_size")
    return block is None or all(
        size % step == 0
        for tensor in quantization.ending_with(".weight").values()
        if tensor.dtype in CODES.values()
        for size, step in zip(tensor.shape, block, strict=True)
    )


def dequantize_compressed(quantization: Quantization) -> dict[str, LazyTensor]:
    """Dequantize each `weight` by `weight_scale`, which has a scale for the matrix, each row, or each block.

    In the format pack-quantized, codes are packed in `weight_packed`.
    """
    stated = quantization.settings.get("format")
    if stated not in ("float-quantized", "int-quantized", "naive-quantized", "pack-quantized"):
        raise quantization.refuse(
            f"format {shorten(stated)} of compressed-tensors is not supported; supported: float-quantized, "
            "int-quantized and pack-quantized"
        )
    for end, what in ((".weight_zero_point", "zero points"), (".weight_g_idx", "groups of inputs in another order")):
        modules = quantization.ending_with(end)
        if modules:
            raise quantization.refuse(
                f"{what} of compressed-tensors are not supported, and {list_keys(list(modules))} have some"
            )
    return _dequantize(_unpacked(quantization), ".weight_scale", _equal_blocks)


def _unpacked(quantization: Quantization) -> Quantization:
    """Return the tensors with `weight` in place of `weight_packed`, which has codes + 2^(bits - 1) in 32-bit words."""
    packed = quantization.ending_with(".weight_packed")
    if not packed:
        return quantization
    quantization.require(packed, [".weight_shape"])
    bits, tensors = _stated_bits(quantization), dict(quantization.tensors)
    for module in packed:
        words, shape = (tensors.pop(f"{module}{end}") for end in (".weight_packed", ".weight_shape"))
        rows, columns = (int(size) for size in shape.load()) if shape.shape == (2,) else (0, 0)
        if words.dtype != torch.int32 or words.shape != (rows, -(-columns * bits // WORD_BITS)):
            raise quantization.refuse(
                f"{module}.weight_packed {list(words.shape)} does not have the shape of {rows} x {columns} codes of "
                f"{bits} bits"
            )
        tensors[f"{module}.weight"] = _packed_codes(words, columns, bits)
    return replace(quantization, tensors=tensors)


def _stated_bits(quantization: Quantization) -> int:
    groups = quantization.settings.get("config_groups")
    weights = (
        [group.get("weights") for group in groups.values() if isinstance(group, dict)]
        if isinstance(groups, dict)
        else []
    )
    stated = [found.get("num_bits") for found in weights if isinstance(found, dict)]
    for bits in (2, 4, 8):
        if stated and all(found == bits for found in stated):
            return bits
    raise quantization.refuse(f"num_bits of weights is {shorten(stated)}; supported: 2, 4 or 8 for all of them")


def _packed_codes(words: LazyTensor, columns: int, bits: int) -> LazyTensor:
    def codes(values: torch.Tensor) -> torch.Tensor:
        return (unpack_words(values, bits).flatten(1)[:, :columns] - (1 << bits - 1)).to(torch.int8)

    return LazyTensor(
        (words.shape[0], columns),
        torch.int8,
        lambda: codes(words.load()),
        lambda rows: codes(words.rows(rows)),
    )


def _equal_blocks(weight: Shape, scales: Shape) -> Shape:
    """Return the size of blocks if `scales` has one for each."""
    rows, columns = scales if len(scales) == 2 else (1, 1)
    return -(-weight[0] // max(rows, 1)), -(-weight[1] // max(columns, 1))


def _dequantize(
    quantization: Quantization, end: str, block_of: Callable[[Shape, Shape], Shape]
) -> dict[str, LazyTensor]:
    """Dequantize every `weight` that is stored as codes; `end` ends the names of their scales.

    `block_of` returns the size of a block from the shapes of weight and scales.
    """
    codes = {
        module: tensor
        for module, tensor in quantization.ending_with(".weight").items()
        if tensor.dtype in CODES.values() and len(tensor.shape) == 2
    }
    quantization.require(codes, [end])
    weights = quantization.without(_UNUSED)
    for module, tensor in codes.items():
        scales = weights.pop(f"{module}{end}")
        block = block_of(tensor.shape, scales.shape)
        grid = tuple(-(-size // step) for size, step in zip(tensor.shape, block, strict=True))
        if scales.shape != grid and not (grid == (1, 1) and scales.shape in ((), (1,))):
            raise quantization.refuse(
                f"{module}{end} has shape {list(scales.shape)} instead of {list(grid)}, the number of blocks of "
                f"{block[0]} x {block[1]} weights"
            )
        weights[f"{module}.weight"] = _scaled(tensor, scales, block, grid)
    return weights


def _scaled(codes: LazyTensor, scales: LazyTensor, block: Shape, grid: Shape) -> LazyTensor:
    """Return codes [out, in] times the scale of their block."""

    def load_rows(rows: Sequence[int]) -> torch.Tensor:
        of_rows = scales.fp32().reshape(grid)[torch.tensor(rows) // block[0]]
        return codes.fp32_rows(rows) * of_rows.repeat_interleave(block[1], dim=1)[:, : codes.shape[1]]

    def load() -> torch.Tensor:
        values, first = torch.empty(codes.shape), 0
        for part in tensor.fp32_parts():
            values[first : first + len(part)] = part
            first += len(part)
        return values

    tensor = LazyTensor(codes.shape, torch.float32, load, load_rows)
    return tensor
