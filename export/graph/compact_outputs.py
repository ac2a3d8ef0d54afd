"""Additional outputs: the first components of the embedding, renormalized, in smaller types."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...client.manifest import CompactOutput, OutputType
from ..onnx_builder import GraphBuilder
from .decoder import DecoderParts
from .head import FP32, unit_rows

ELEMENTS = {
    OutputType.FLOAT32: FP32,
    OutputType.FLOAT16: ir.DataType.FLOAT16,
    OutputType.UBINARY: ir.DataType.UINT8,
}
_BYTE = 8


def compact_rows(
    g: GraphBuilder, parts: DecoderParts, embeddings: ir.Value, output: CompactOutput, width: int
) -> ir.Value:
    """Return `output` [R, output.width] of `embeddings` FP32 [R, width]; a row of NaN stays NaN, or has bits of 0."""
    rows = embeddings
    if output.dim < width:
        rows = g.op("Slice", rows, g.constant([0]), g.constant([output.dim]), g.constant([1]), name="first")
        # signs do not depend on the length
        if output.dtype is not OutputType.UBINARY:
            rows = unit_rows(g, parts, rows, output.dim)
    if output.dtype is OutputType.UBINARY:
        return _pack_signs(g, rows, output.dim)
    return rows if output.dtype is OutputType.FLOAT32 else g.op("Cast", rows, to=ELEMENTS[output.dtype], name="cast")


def _pack_signs(g: GraphBuilder, rows: ir.Value, dim: int) -> ir.Value:
    """Return UINT8 [R, dim / 8]. A product with powers of two sums exactly, and needs no cuDNN on a GPU."""
    signs = g.op("Cast", g.op("Greater", rows, g.scalar(0.0, FP32), name="is_positive"), to=FP32, name="signs")
    bits = g.op("Reshape", signs, g.constant([0, dim // _BYTE, _BYTE]), name="bits")
    powers = g.table(g.path("powers"), 2.0 ** np.arange(_BYTE - 1, -1, -1, dtype=np.float32)[:, None])
    sums = g.op("MatMul", bits, powers, name="sums")
    numbers = g.op("Reshape", sums, g.constant([0, dim // _BYTE]), name="numbers")
    return g.op("Cast", numbers, to=ELEMENTS[OutputType.UBINARY], name="bytes")
