"""Where packed tokens stand in right-padded rows, and back; computed once per batch, used by every layer.

packed [T]   a0 a1 a2 b0 │ tokens [G, W]   0 1 2 │ places [T]   0 1 2 3
                         │                 3 3 3 │
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .tokens import PackedTokens, longest_row

INT32 = ir.DataType.INT32


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGrid:
    """G rows of the width W of the longest."""

    tokens: ir.Value
    """INT64 [G, W]: which packed token stands where; behind a row's end its last token again."""
    places: ir.Value
    """INT64 [T]: where each packed token stands in the rows laid end to end, [G · W]."""
    last: ir.Value
    """INT64 [G]: where each row's last token stands there."""
    last_position: ir.Value
    """INT32 [G]: length of each row less one, as GroupQueryAttention wants it."""
    width: ir.Value
    """INT32 [1]: W, in host memory."""


def lay_out_rows(g: GraphBuilder, packed: PackedTokens) -> RowGrid:
    """The grid of a batch: a dozen small kernels and two numbers that the host waits for."""
    width = g.op("Squeeze", longest_row(g, packed), name="width")
    columns = g.op("Range", g.constant(0), width, g.constant(1), name="columns")
    length = g.op("Unsqueeze", packed.lengths, g.constant([1]))
    last = g.op("Sub", packed.lengths, g.constant([1]), name="last_position")
    inside = g.op("Less", columns, length, name="inside")
    column = g.op("Min", columns, g.op("Unsqueeze", last, g.constant([1])))
    tokens = g.op("Add", g.op("Unsqueeze", packed.starts, g.constant([1])), column, name="tokens")
    cells = g.op("Range", g.constant(0), g.op("Size", tokens), g.constant(1), name="cells")
    places = g.op("Compress", cells, g.op("Reshape", inside, g.constant([-1])), axis=0, name="places")
    return RowGrid(
        tokens=tokens,
        places=places,
        last=g.op("Gather", places, packed.last, axis=0, name="last_places"),
        last_position=g.op("Cast", last, to=INT32),
        width=g.op("Cast", g.op("Shape", tokens, start=1, end=2), to=INT32, name="host_width"),
    )
