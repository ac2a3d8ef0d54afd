"""8-bit codes with one scale for each row of a matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..onnx_builder import GraphBuilder
from ..sources.weights import LazyTensor, parts_of
from .codes_and_scales import CodesAndScales, Quantized

INT8 = ir.DataType.INT8
LARGEST_CODE = 127
"""Codes are symmetric, from -127 to 127."""


def quantize_rows(matrix: NDArray[np.float32], dtype: ir.DataType) -> Quantized:
    """Return codes int8 [rows, n], rounded half to even, and scales [rows] of `dtype`; 1 for a row of zeros."""
    scales = round_up(np.abs(matrix).max(axis=1) / np.float32(LARGEST_CODE), dtype)
    steps = matrix / scales.astype(np.float32)[:, None]
    return Quantized(np.rint(steps, out=steps).astype(np.int8), scales)


def quantize_tensors(tensors: Sequence[LazyTensor], dtype: ir.DataType) -> CodesAndScales:
    """Return the codes and scales of the rows of concatenated tensors."""
    return CodesAndScales(lambda: (quantize_rows(part.numpy(), dtype) for part in parts_of(tensors)))


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

    quantized = quantize_tensors([table], dtype)
    codes = quantized.codes(g, f"{name}.codes", table.shape, INT8)
    scales = quantized.scales(g, f"{name}.scale", [table.shape[0], 1], dtype)
    rows = g.op("Cast", g.op("Gather", codes, indices, axis=0, name="codes_of_tokens"), to=dtype)
    return g.op("Mul", rows, g.op("Gather", scales, indices, axis=0, name="scales_of_tokens"), name="tokens")
