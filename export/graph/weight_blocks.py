"""Weights in 8 bits with a scale for each block of a row: they take half of fp16's memory, activations stay floats.

The format is that of ONNX Runtime's MatMulNBits: w = (code - 128) · scale, blocks along the inner dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .builder import MICROSOFT, GraphBuilder

BLOCK = 128
"""Weights that share a scale; the inner dimensions of every Qwen3 model are multiples of it."""
_LARGEST_CODE = 127
_ZERO_CODE = 128


@dataclass(frozen=True, slots=True)
class WeightBlocks:
    """A matrix [rows, n] as codes uint8 [rows, blocks, BLOCK] and scales [rows, blocks] of a float type."""

    codes: NDArray[np.uint8]
    scales: NDArray[np.generic]


def quantize_blocks(matrix: NDArray[np.float32], dtype: ir.DataType) -> WeightBlocks:
    """`matrix` in blocks whose scales are of the 16-bit or 32-bit float type `dtype`.

    The last block of a row is filled up with zeros. No weight is off by more than half a scale.
    """
    rows, width = matrix.shape
    blocks = block_count(width)
    padded = np.zeros((rows, blocks * BLOCK), np.float32)
    padded[:, :width] = matrix
    cut = padded.reshape(rows, blocks, BLOCK)
    scales = round_up(np.abs(cut).max(axis=2) / np.float32(_LARGEST_CODE), dtype)
    steps = np.rint(cut / scales.astype(np.float32)[:, :, None])
    return WeightBlocks((steps + _ZERO_CODE).astype(np.uint8), scales)


def block_count(width: int) -> int:
    """Blocks of a row of `width` weights."""
    return -(-width // BLOCK)


def round_up(scales: NDArray[np.float32], dtype: ir.DataType) -> NDArray[np.generic]:
    """The next numbers of `dtype` not below `scales`, so that no code leaves its range; one for a scale of zero.

    Codes are taken against these, not against the exact scales: rounding a scale then costs nothing.
    """
    positive = np.where(scales > 0, scales, np.float32(1))
    rounded = positive.astype(dtype.numpy())
    # the bits of a positive float, as a whole number, grow by one from a float to the next
    bits = rounded.view(f"u{rounded.itemsize}")
    short = rounded.astype(np.float32) < positive
    raised: NDArray[np.generic] = (bits + short.astype(bits.dtype)).view(rounded.dtype)
    return raised


def multiply_blocks(
    g: GraphBuilder,
    name: str,
    rows: ir.Value,
    shape: tuple[int, int],
    dtype: ir.DataType,
    load: Callable[[], NDArray[np.float32]],
) -> ir.Value:
    """rows [·, in] of type `dtype` times the transpose of the matrix of `shape` [out, in]: [·, out]."""
    columns, width = shape
    blocks = block_count(width)
    codes = g.weight(
        f"{name}.codes",
        [columns, blocks, BLOCK],
        ir.DataType.UINT8,
        lambda: quantize_blocks(load(), dtype).codes,
    )
    scales = g.weight(f"{name}.scales", [columns, blocks], dtype, lambda: quantize_blocks(load(), dtype).scales)
    return g.op(
        "MatMulNBits",
        rows,
        codes,
        scales,
        name=name,
        domain=MICROSOFT,
        K=width,
        N=columns,
        bits=8,
        block_size=BLOCK,
    )
