"""Pooling of the values of a row's tokens.

    last token   [T, ·] of all tokens ─ gather each row's last token ─→ [G, ·]
    mean         [T, ·] ─ gather cells ─→ [G, W, ·] ─ sum of each row's tokens ─→ [G, ·] ─ / length ─→ [G, ·]

Padding is already removed, so the last token is a real one: the end token, if the tokenizer appends one.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .tokens import PackedTokens

FP32 = ir.DataType.FLOAT


def pool_last_token(g: GraphBuilder, packed: PackedTokens, values: ir.Value, name: str) -> ir.Value:
    """Return each row's last token [G, ·] from the values of all tokens [T, ·]."""
    return g.op("Gather", values, packed.last_tokens, axis=0, name=name)


def pool_last_cell(g: GraphBuilder, packed: PackedTokens, values: ir.Value, name: str) -> ir.Value:
    """Return each row's last token [G, ·] from the values of all cells [G, W, ·]."""
    return pool_last_token(g, packed, g.op("Flatten", values, axis=-1), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSums:
    """The cells of each row that are tokens, to sum them.

    Each row is a product of its own with its own cells, so that a value that is not finite stays in its row.
    """

    token_of_cell: ir.Value | None
    """INT64 [G, W]: index of each cell's token; None if values are stored by cells."""
    is_token: ir.Value
    """FP32 [G, 2, W]: 1 for a token, 0 for padding. Twice, because a product with a single row would use another
    kernel on a CPU, whose order of sums depends on W."""
    lengths: ir.Value
    """FP32 [G, 1]"""


def lay_out_sums(g: GraphBuilder, lengths: ir.Value, columns: ir.Value, token_of_cell: ir.Value | None) -> RowSums:
    """Return the cells of rows with `lengths` INT64 [G], whose `columns` are INT64 [W]: 0, 1, …"""
    by_row = g.op("Unsqueeze", lengths, g.constant([1]))
    is_token = g.op("Cast", g.op("Less", columns, by_row), to=FP32)
    is_token = g.op("Unsqueeze", is_token, g.constant([1]))
    return RowSums(
        token_of_cell=token_of_cell,
        is_token=g.op("Concat", is_token, is_token, axis=1, name="is_summed"),
        lengths=g.op("Cast", by_row, to=FP32, name="counts"),
    )


def pool_mean(g: GraphBuilder, sums: RowSums, values: ir.Value) -> ir.Value:
    """Return the mean over each row's tokens FP32 [G, D] from the values FP32 of all tokens [T, D] or cells [G, W, D].

    Cells of padding repeat a token of their row.
    """
    cells = values if sums.token_of_cell is None else g.op("Gather", values, sums.token_of_cell, axis=0, name="cells")
    twice = g.op("MatMul", sums.is_token, cells, name="sums")
    total = g.ops("Split", twice, axis=1, num_outputs=2, name="sum", outputs=2)[0]
    return g.op("Div", g.op("Squeeze", total, g.constant([1])), sums.lengths, name="mean")
