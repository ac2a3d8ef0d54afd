"""Pooling of the values of a row's tokens.

    last token   [T, ·] of all tokens ─ gather each row's last token ─→ [G, ·]
    mean         [T, ·] ─ gather cells ─→ [G, W, ·] ─ sum of each row's tokens ─→ [G, ·] ─ / tokens ─→ [G, ·]

Padding is already removed, so the last token is a real one: the end token, if the tokenizer appends one.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .groups import TextGroup
from .tokens import PackedTokens

FP32 = ir.DataType.FLOAT


def pool_last_token(g: GraphBuilder, packed: PackedTokens, values: ir.Value, name: str) -> ir.Value:
    """Return each row's last token [G, ·] from the values of all tokens [T, ·]."""
    return g.op("Gather", values, packed.last_tokens, axis=0, name=name)


def pool_last_cell(g: GraphBuilder, packed: PackedTokens, values: ir.Value, name: str) -> ir.Value:
    """Return each row's last token [G, ·] from the values of all cells [G, W, ·]."""
    return pool_last_token(g, packed, g.op("Flatten", values, axis=-1), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSums:
    """Sums over each row's tokens on a CPU, one token after the other.

    The order of sums in a matrix product depends on the shapes and on the number of threads.
    """

    token_of_cell: ir.Value
    """INT64 [b, s]: index of each cell's token."""
    last_cells: ir.Value
    """INT64 [b]: index of the cell of each row's last token."""
    counts: ir.Value
    """FP32 [b, 1]: tokens of each row."""

    def mean(self, g: GraphBuilder, values: ir.Value) -> ir.Value:
        """Return the mean over each row's tokens FP32 [b, D] from the values FP32 of all tokens [t, D]."""
        cells = g.op("Gather", values, self.token_of_cell, axis=0, name="cells")
        sums = g.op("Flatten", g.op("CumSum", cells, g.constant(1), name="running_sums"), axis=-1)
        return g.op("Div", g.op("Gather", sums, self.last_cells, axis=0, name="sum"), self.counts, name="mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowProducts:
    """Sums over each row's tokens on a GPU, as products of each row's mask with its cells.

    A row has a product of its own, so that a value that is not finite stays in its row.
    """

    token_of_cell: ir.Value | None
    """INT64 [G, W]: index of each cell's token; None if values are stored by cells."""
    is_token: ir.Value
    """FP32 [G, 1, W]: 1 for a token, 0 for padding, whose cells repeat a token of their row."""
    counts: ir.Value
    """FP32 [G, 1]: tokens of each row."""

    def mean(self, g: GraphBuilder, values: ir.Value) -> ir.Value:
        """Return the mean over each row's tokens FP32 [G, D] from FP32 values of tokens [T, D] or cells [G, W, D]."""
        cells = values
        if self.token_of_cell is not None:
            cells = g.op("Gather", values, self.token_of_cell, axis=0, name="cells")
        sums = g.op("MatMul", self.is_token, cells, name="sums")
        return g.op("Div", g.op("Squeeze", sums, g.constant([1])), self.counts, name="mean")


def lay_out_running_sums(g: GraphBuilder, group: TextGroup) -> RunningSums:
    """Return the sums of `group`."""
    return RunningSums(
        token_of_cell=group.token_of_cell,
        last_cells=g.op("Gather", group.cell_of_token, group.packed.last_tokens, axis=0, name="last_cells"),
        counts=_counts(g, group.lengths),
    )


def lay_out_products(
    g: GraphBuilder, lengths: ir.Value, columns: ir.Value, token_of_cell: ir.Value | None
) -> RowProducts:
    """Return the sums of rows with `lengths` INT64 [G], whose `columns` are INT64 [W]: 0, 1, …"""
    is_token = g.op("Less", columns, g.op("Unsqueeze", lengths, g.constant([1])))
    is_token = g.op("Unsqueeze", g.op("Cast", is_token, to=FP32), g.constant([1]), name="is_summed")
    return RowProducts(token_of_cell=token_of_cell, is_token=is_token, counts=_counts(g, lengths))


def _counts(g: GraphBuilder, lengths: ir.Value) -> ir.Value:
    return g.op("Cast", g.op("Unsqueeze", lengths, g.constant([1])), to=FP32, name="counts")
