"""Indices between packed tokens and right-padded rows; computed once per batch, used by every layer.

packed [T]   a0 a1 a2 b0 │ token_of_cell [G, W]   0 1 2 │ cell_of_token [T]   0 1 2 3
                         │                        3 3 3 │
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .tokens import PackedTokens, max_row_length

INT32 = ir.DataType.INT32


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGrid:
    """G rows of width W, the length of the longest."""

    token_of_cell: ir.Value
    """INT64 [G, W]: index of each cell's packed token; cells after the end of a row repeat its last token."""
    cell_of_token: ir.Value
    """INT64 [T]: index of each packed token's cell in the flattened grid [G·W]."""
    last_cells: ir.Value
    """INT64 [G]: index of the cell of each row's last token."""
    seqlens_k: ir.Value
    """INT32 [G]: length of each row less one, GroupQueryAttention's input of that name."""
    width: ir.Value
    """INT32 [1] in host memory: W."""


def lay_out_rows(g: GraphBuilder, packed: PackedTokens) -> RowGrid:
    """Compute the grid of a batch: a dozen small kernels, and two values that the host waits for."""
    width = g.op("Squeeze", max_row_length(g, packed), name="width")
    columns = g.op("Range", g.constant(0), width, g.constant(1), name="columns")
    length = g.op("Unsqueeze", packed.lengths, g.constant([1]))
    last = g.op("Sub", packed.lengths, g.constant([1]), name="last_position")
    inside = g.op("Less", columns, length, name="inside")
    column = g.op("Min", columns, g.op("Unsqueeze", last, g.constant([1])))
    token_of_cell = g.op("Add", g.op("Unsqueeze", packed.row_starts, g.constant([1])), column, name="tokens")
    cells = g.op("Range", g.constant(0), g.op("Size", token_of_cell), g.constant(1), name="cells")
    cell_of_token = g.op("Compress", cells, g.op("Reshape", inside, g.constant([-1])), axis=0, name="places")
    return RowGrid(
        token_of_cell=token_of_cell,
        cell_of_token=cell_of_token,
        last_cells=g.op("Gather", cell_of_token, packed.last_tokens, axis=0, name="last_places"),
        seqlens_k=g.op("Cast", last, to=INT32),
        width=g.op("Cast", g.op("Shape", token_of_cell, start=1, end=2), to=INT32, name="host_width"),
    )
