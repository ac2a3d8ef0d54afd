"""8-bit codes with one scale for each row of a matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..onnx_builder import GraphBuilder
from ..sources.weights import LazyTensor
from .weight_format import FP32

INT8 = ir.DataType.INT8
LARGEST_CODE = 127
"""Codes are symmetric, from -127 to 127."""


def row_scales(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scale of each row's codes: float32 [rows] from [rows, n]; 1 for a row of zeros."""
    peaks = np.abs(matrix).max(axis=1)
    scales: NDArray[np.float32] = np.where(peaks > 0, peaks / np.float32(LARGEST_CODE), np.float32(1))
    return scales


def row_codes(matrix: NDArray[np.float32], dtype: ir.DataType = FP32) -> NDArray[np.int8]:
    """Return codes int8 [rows, n], rounded half to even, for scales that are stored as `dtype`."""
    scales = round_up(row_scales(matrix), dtype).astype(np.float32)
    codes: NDArray[np.int8] = np.rint(matrix / scales[:, None]).astype(np.int8)
    return codes


def round_up(scales: NDArray[np.float32], dtype: ir.DataType) -> NDArray[np.generic]:
    """Round `scales` up to `dtype`, so that no code overflows; 1 for a scale of zero.

    Codes are computed with the rounded scales, so that rounding adds no error.
    """
    positive = np.where(scales > 0, scales, np.float32(1))
    rounded = positive.astype(dtype.numpy())
    # the next larger float has the bit pattern of a positive float plus one
    bits = rounded.view(f"u{rounded.itemsize}")
    short = rounded.astype(np.float32) < positive
    raised: NDArray[np.generic] = (bits + short.astype(bits.dtype)).view(rounded.dtype)
    return raised


def gather_row_codes(g: GraphBuilder, name: str, table: LazyTensor, indices: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Look up rows of a table [n, width] stored as codes and scales: [T, width] of `dtype`."""

    def codes_of_parts() -> Iterator[NDArray[np.generic]]:
        return (row_codes(part.numpy(), dtype) for part in table.fp32_parts())

    def scales_of_parts() -> Iterator[NDArray[np.generic]]:
        return (round_up(row_scales(part.numpy()), dtype)[:, None] for part in table.fp32_parts())

    codes = g.weight_in_parts(f"{name}.codes", table.shape, INT8, codes_of_parts)
    scales = g.weight_in_parts(f"{name}.scale", [table.shape[0], 1], dtype, scales_of_parts)
    rows = g.op("Cast", g.op("Gather", codes, indices, axis=0, name="codes_of_tokens"), to=dtype)
    return g.op("Mul", rows, g.op("Gather", scales, indices, axis=0, name="scales_of_tokens"), name="tokens")
