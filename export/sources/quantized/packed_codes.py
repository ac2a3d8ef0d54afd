"""Codes of a few bits in 32-bit words, with a scale and a zero point for each group of inputs: GPTQ and AWQ.

    W[o, i] = (code[i, o] - zero[g(i), o]) · scale[g(i), o]

The product is rounded once, to fp32. A word has n = 32 / bits codes, the first in its lowest bits:

    GPTQ   qweight [in / n, out] along the inputs; qzeros [groups, out / n], zero - 1 in the format gptq
    AWQ    qweight [in, out / 8], qzeros [groups, out / 8]; the outputs of a word are in the order 0 2 4 6 1 3 5 7

Sources: GPTQModel 7.7 (`convert_gptq_v1_to_v2_format`, `dequantize_weight`) and AutoAWQ 0.2.9 (`dequantize_gemm`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...errors import SourceError
from ..stated_numbers import shorten
from ..weights import LazyTensor, in_memory
from .quantization import Quantization
from .words import WORD_BITS, unpack_words

_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_PART = 1 << 18
"""Weights that are dequantized at once."""


def dequantize_gptq(quantization: Quantization) -> dict[str, LazyTensor]:
    """Dequantize each `qweight` by `qzeros`, `scales` and, if there is one, `g_idx`, the group of each input."""
    bits = quantization.size("bits")
    if bits not in (2, 4, 8):
        raise quantization.refuse(f"GPTQ of {bits} bits is not supported; supported: 2, 4 and 8 bits")
    layout = quantization.settings.get("checkpoint_format") or "gptq"
    if layout not in ("gptq", "gptq_v2"):
        raise quantization.refuse(f"checkpoint_format {shorten(layout)} is not supported; supported: gptq, gptq_v2")
    # a carry undoes the borrow with which a zero point of 0 was stored
    added = sum(1 << first for first in range(0, WORD_BITS, bits)) if layout == "gptq" else 0
    return _dequantize(
        quantization,
        _Packing(
            codes_per_word=WORD_BITS // bits,
            along_inputs=True,
            codes=lambda words: unpack_words(words, bits).transpose(1, 2).flatten(0, 1),
            zeros=lambda words: unpack_words(words.long() + added, bits).flatten(1),
        ),
    )


def dequantize_awq(quantization: Quantization) -> dict[str, LazyTensor]:
    """Dequantize each `qweight` by `qzeros` and `scales`."""
    bits = quantization.size("bits", default=4)
    layout = str(quantization.settings.get("version") or "gemm").lower()
    if bits != 4 or layout != "gemm":
        raise quantization.refuse(
            f"AWQ of {bits} bits in the layout {shorten(layout)} is not supported; supported: 4 bits, gemm"
        )
    order = torch.tensor(_AWQ_ORDER).argsort()

    def unpack(words: torch.Tensor) -> torch.Tensor:
        return unpack_words(words, bits)[:, :, order].flatten(1)

    return _dequantize(
        quantization,
        _Packing(codes_per_word=WORD_BITS // bits, along_inputs=False, codes=unpack, zeros=unpack),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packing:
    """How codes [in, out] and zero points [groups, out] are packed."""

    codes_per_word: int
    along_inputs: bool
    """Whether a word of `qweight` has the codes of one output; otherwise those of one input."""
    codes: Callable[[torch.Tensor], torch.Tensor]
    """Unpacks rows of `qweight`."""
    zeros: Callable[[torch.Tensor], torch.Tensor]
    """Unpacks `qzeros`."""

    def shape(self, words: LazyTensor) -> tuple[int, int]:
        """Return [out, in] of the weight that `words` has the codes of."""
        rows, columns = words.shape
        if self.along_inputs:
            return columns, rows * self.codes_per_word
        return columns * self.codes_per_word, rows


def _dequantize(quantization: Quantization, packing: _Packing) -> dict[str, LazyTensor]:
    packed = quantization.ending_with(".qweight")
    quantization.require(packed, [".qzeros", ".scales"])
    weights = dict(quantization.tensors)
    stated = quantization.settings.get("group_size")
    for module in packed:
        words, zeros, scales = (weights.pop(f"{module}{end}") for end in (".qweight", ".qzeros", ".scales"))
        if len(words.shape) != 2 or {words.dtype, zeros.dtype} != {torch.int32}:
            raise quantization.refuse(f"{module}.qweight and qzeros are not matrices of 32-bit integers")
        out, inputs = packing.shape(words)
        group = inputs if stated in (None, -1) else quantization.size("group_size")
        groups = -(-inputs // group)
        if (zeros.shape, scales.shape) != ((groups, out // packing.codes_per_word), (groups, out)):
            raise quantization.refuse(
                f"{module}.qzeros {list(zeros.shape)} and scales {list(scales.shape)} do not have the shapes of "
                f"{groups} groups of {group} inputs and {out} outputs"
            )
        group_of_input = weights.pop(f"{module}.g_idx", None) or in_memory(torch.arange(inputs) // group)
        if group_of_input.shape != (inputs,):
            raise quantization.refuse(f"{module}.g_idx has shape {list(group_of_input.shape)} instead of [{inputs}]")
        matrix = _PackedMatrix(module, (out, inputs), words, zeros, scales, group_of_input, packing)
        weights[f"{module}.weight"] = LazyTensor((out, inputs), torch.float32, matrix.load)
    return weights


@dataclass(frozen=True, slots=True)
class _PackedMatrix:
    module: str
    shape: tuple[int, int]
    """[out, in]"""
    words: LazyTensor
    zeros: LazyTensor
    scales: LazyTensor
    group_of_input: LazyTensor
    """[in]"""
    packing: _Packing

    def load(self) -> torch.Tensor:
        """Return float32 [out, in], dequantized some inputs at a time."""
        values, groups = torch.empty(self.shape), self._read_groups()
        zero, scale = self.packing.zeros(self.zeros.load()).to(torch.float32), self.scales.fp32()
        rows = self.words.shape[0]
        count, first = max(1, _PART * rows // values.numel()), 0
        for row in range(0, rows, count):
            codes = self.packing.codes(self.words.rows(range(row, min(row + count, rows))))
            part = slice(first, first + len(codes))
            values[:, part] = ((codes - zero[groups[part]]) * scale[groups[part]]).T
            first = part.stop
        return values

    def _read_groups(self) -> torch.Tensor:
        groups, count = self.group_of_input.load().long(), self.scales.shape[0]
        if int(groups.min()) < 0 or int(groups.max()) >= count:
            raise SourceError(f"{self.module}.g_idx has groups other than 0 to {count - 1}; is the checkpoint damaged?")
        return groups
