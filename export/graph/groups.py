"""Texts in groups of a few hundred tokens: what lies between two products of a group stays in the cache.

rows by length ─ cut ─→ Loop over groups ─ body ─→ answers end to end ─→ in the order of the batch

A group is one text, or texts of like length, so that rows of attention are hardly padded. Memory goes with the group
and not with the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .control_flow import join_answers
from .tokens import PackedTokens

GROUP_TOKENS = 384
"""A group ends with the text that reaches a multiple of this; a longer text is a group of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextGroup:
    """One group's tokens, end to end, and its rows as a grid of cells [b, s], s tokens of the longest.

    A cell behind the end of a row stands for the row's last token.
    """

    packed: PackedTokens
    lengths: ir.Value
    """INT64 [b]"""
    longest: ir.Value
    """INT64 [1]: s"""
    token_of_cell: ir.Value
    """INT64 [b, s]"""
    cell_of_token: ir.Value
    """INT64 [t]"""


def run_in_groups(
    g: GraphBuilder,
    packed: PackedTokens,
    dtype: ir.DataType,
    body: Callable[[GraphBuilder, TextGroup], ir.Value],
) -> ir.Value:
    """`body`'s answers [b, D] of `dtype` for every group: [G, D] in the order of `packed`."""
    with g.scope("groups"):
        zero = g.constant([0])
        lengths = g.op("Sub", packed.ends, packed.starts, name="lengths")
        count = g.op("Shape", lengths, name="rows")
        ascending, order = g.ops("TopK", lengths, count, largest=0, sorted=1, name="by_length", outputs=2)
        # every row's group by where its last token stands in windows of like size
        ends = g.op("CumSum", ascending, g.constant(0), name="ends")
        tokens = g.op("Shape", packed.ids, name="tokens")
        groups = g.op("Div", g.op("Add", tokens, g.constant([GROUP_TOKENS - 1])), g.constant([GROUP_TOKENS]))
        window = g.op("Div", g.op("Add", tokens, g.op("Sub", groups, g.constant([1]))), groups, name="window")
        group = g.op("Div", g.op("Sub", ends, g.constant([1])), window, name="group_of_row")
        before = g.op("Slice", g.op("Concat", g.constant([-1]), group, axis=0), zero, g.constant([-1]), zero)
        is_first = g.op("Not", g.op("Equal", group, before), name="is_first")
        ranks = g.op("Range", g.constant(0), g.op("Squeeze", count), g.constant(1))
        first = g.op("Compress", ranks, is_first, axis=0, name="first_row")
        behind = g.op("Slice", first, g.constant([1]), g.constant([2**31 - 1]), zero)
        behind = g.op("Concat", behind, count, axis=0, name="end_row")
        number = g.op("Size", first, name="number")

    def run(b: GraphBuilder, index: ir.Value) -> ir.Value:
        with b.scope("groups"):
            index = b.op("Unsqueeze", index, b.constant([0]))
            start, end = b.op("Gather", first, index), b.op("Gather", behind, index)
            rows = b.op("Slice", order, start, end, b.constant([0]), name="own_rows")
            group = _lay_out(b, packed, b.op("Gather", lengths, rows), b.op("Gather", packed.starts, rows))
        return body(b, group)

    answers = join_answers(g, "groups", number, dtype, run)
    with g.scope("groups"):
        _, place = g.ops("TopK", order, count, largest=0, sorted=1, name="place_of_row", outputs=2)
        return g.op("Gather", answers, place, axis=0, name="answers")


def _lay_out(b: GraphBuilder, packed: PackedTokens, lengths: ir.Value, starts: ir.Value) -> TextGroup:
    """The group whose rows of `lengths` [b] start at `starts` [b] in `packed`."""
    one = b.constant([1])
    longest = b.op("ReduceMax", lengths, b.constant([0]), keepdims=1, name="longest")
    steps = b.op("Range", b.constant(0), b.op("Squeeze", longest), b.constant(1), name="steps")
    lengths_by_row = b.op("Unsqueeze", lengths, one)
    is_token = b.op("Less", steps, lengths_by_row)
    is_token = b.op("Reshape", is_token, b.constant([-1]), name="is_token")
    wire = b.op("Reshape", b.op("Add", b.op("Unsqueeze", starts, one), steps), b.constant([-1]))
    ids = b.op("Gather", packed.ids, b.op("Compress", wire, is_token, axis=0), name="ids")
    ends = b.op("CumSum", lengths, b.constant(0), name="own_ends")
    own_starts = b.op("Sub", ends, lengths, name="own_starts")
    within = b.op("Min", steps, b.op("Sub", lengths_by_row, one))
    cells = b.op("Range", b.constant(0), b.op("Size", is_token), b.constant(1))
    return TextGroup(
        packed=dataclasses.replace(packed, ids=ids, starts=own_starts, ends=ends, last=b.op("Sub", ends, one)),
        lengths=lengths,
        longest=longest,
        token_of_cell=b.op("Add", b.op("Unsqueeze", own_starts, one), within, name="token_of_cell"),
        cell_of_token=b.op("Compress", cells, is_token, axis=0, name="cell_of_token"),
    )
