"""Groups of texts, a few hundred tokens each, so that the activations of a group stay in the CPU's cache.

rows by length ─ cut ─→ Loop over groups ─ body ─→ concatenate ─→ restore the order of the batch

A group is one text or several of similar length, so attention has little padding. Memory grows with the size of a
group, not of the batch. All rows of a group have the same stored prefix, or none; only their own tokens are computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .control_flow import concat_loop
from .prefixes import GroupPrefix, MatchedRows
from .tokens import PackedTokens

GROUP_TOKENS = 384
"""A group ends with the text that reaches a multiple of this; a longer text is a group of its own."""
_PREFIX_SHARE = 8
"""This many tokens of a row's prefix count as one token of a group: only their keys and values are copied."""
_LONGER_THAN_ROWS = 2**40
"""Orders rows by prefix first, and by length second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextGroup:
    """The packed tokens of one group, and its rows as a padded grid [b, s], without the prefix.

    Cells after the end of a row repeat its last token.
    """

    packed: PackedTokens
    lengths: ir.Value
    """INT64 [b]"""
    max_length: ir.Value
    """INT64 [1]: s, the length of the longest row."""
    token_of_cell: ir.Value
    """INT64 [b, s]: index of a cell's token in the packed tokens."""
    cell_of_token: ir.Value
    """INT64 [t]: index of a token's cell in the flattened grid."""
    prefix: GroupPrefix | None
    """None if the graph has no stored prefixes."""


def run_in_groups(
    g: GraphBuilder,
    packed: PackedTokens,
    dtype: ir.DataType,
    body: Callable[[GraphBuilder, TextGroup], ir.Value],
    matched: MatchedRows | None,
) -> ir.Value:
    """Run `body`, whose outputs are [b, D] of `dtype`, on every group: [G, D] in the order of `packed`.

    `matched` is None if the graph has no stored prefixes.
    """
    with g.scope("groups"):
        zero = g.constant([0])
        starts, lengths = packed.row_starts, g.op("Sub", packed.row_ends, packed.row_starts, name="lengths")
        if matched is not None:
            starts, lengths = matched.own_starts, matched.own_lengths
        count = g.op("Shape", lengths, name="rows")
        sizes, order = _sort_rows(g, lengths, count, matched)
        # a row belongs to the window of equal size that its last token falls into
        ends = g.op("CumSum", sizes, g.constant(0), name="ends")
        tokens = g.op("Gather", ends, g.constant([-1]), axis=0, name="tokens")
        groups = g.op("Div", g.op("Add", tokens, g.constant([GROUP_TOKENS - 1])), g.constant([GROUP_TOKENS]))
        window = g.op("Div", g.op("Add", tokens, g.op("Sub", groups, g.constant([1]))), groups, name="window")
        group = g.op("Div", g.op("Sub", ends, g.constant([1])), window, name="group_of_row")
        is_first = _differs_from_previous(g, group)
        if matched is not None:
            sorted_index = g.op("Gather", matched.index, order, axis=0)
            is_first = g.op("Or", is_first, _differs_from_previous(g, sorted_index), name="is_first")
        ranks = g.op("Range", g.constant(0), g.op("Squeeze", count), g.constant(1))
        first_rows = g.op("Compress", ranks, is_first, axis=0, name="first_row")
        end_rows = g.op("Slice", first_rows, g.constant([1]), g.constant([2**31 - 1]), zero)
        end_rows = g.op("Concat", end_rows, count, axis=0, name="end_row")
        number = g.op("Size", first_rows, name="number")

    def run(b: GraphBuilder, index: ir.Value) -> ir.Value:
        with b.scope("groups"):
            index = b.op("Unsqueeze", index, b.constant([0]))
            start, end = b.op("Gather", first_rows, index), b.op("Gather", end_rows, index)
            rows = b.op("Slice", order, start, end, b.constant([0]), name="own_rows")
            prefix = None if matched is None else _prefix_of_group(b, matched, rows)
            group = lay_out_group(b, packed, b.op("Gather", starts, rows), b.op("Gather", lengths, rows), prefix)
        return body(b, group)

    outputs = concat_loop(g, "groups", number, dtype, run)
    with g.scope("groups"):
        _, inverse = g.ops("TopK", order, count, largest=0, sorted=1, name="place_of_row", outputs=2)
        return g.op("Gather", outputs, inverse, axis=0, name="answers")


def _sort_rows(
    g: GraphBuilder, lengths: ir.Value, count: ir.Value, matched: MatchedRows | None
) -> tuple[ir.Value, ir.Value]:
    """Return what each row contributes to the size of its group, and the rows' indices, by prefix and length.

    All are INT64 [G]; `lengths` are those of the rows' own tokens.
    """
    if matched is None:
        ascending, order = g.ops("TopK", lengths, count, largest=0, sorted=1, name="by_length", outputs=2)
        return ascending, order
    key = g.op("Add", g.op("Mul", matched.index, g.constant(_LONGER_THAN_ROWS)), lengths)
    order = g.ops("TopK", key, count, largest=0, sorted=1, name="by_prefix", outputs=2)[1]
    share = g.op("Div", matched.prefix_length, g.constant(_PREFIX_SHARE))
    return g.op("Gather", g.op("Add", lengths, share), order, axis=0, name="sizes"), order


def _differs_from_previous(g: GraphBuilder, values: ir.Value) -> ir.Value:
    """Return BOOL [n]: whether each value of INT64 [n], none of them negative, differs from the one before."""
    zero, before_first = g.constant([0]), g.constant([-1])
    previous = g.op("Slice", g.op("Concat", before_first, values, axis=0), zero, before_first, zero)
    return g.op("Not", g.op("Equal", values, previous), name="is_first")


def _prefix_of_group(b: GraphBuilder, matched: MatchedRows, rows: ir.Value) -> GroupPrefix:
    """Return the prefix that all `rows` INT64 [b] have."""
    index = b.op("Gather", matched.index, b.op("Slice", rows, b.constant([0]), b.constant([1])), name="prefix")
    return GroupPrefix(
        start=b.op("Gather", matched.starts, index, name="prefix_start"),
        length=b.op("Gather", matched.prefix_lengths, index, name="prefix_length"),
        is_used=b.op("Greater", index, b.constant([0]), name="has_prefix"),
    )


def lay_out_group(
    b: GraphBuilder, packed: PackedTokens, row_starts: ir.Value, lengths: ir.Value, prefix: GroupPrefix | None
) -> TextGroup:
    """Return the group of rows whose own tokens start at `row_starts` [b] in `packed` and have `lengths` [b]."""
    one = b.constant([1])
    max_length = b.op("ReduceMax", lengths, b.constant([0]), keepdims=1, name="longest")
    steps = b.op("Range", b.constant(0), b.op("Squeeze", max_length), b.constant(1), name="steps")
    lengths_by_row = b.op("Unsqueeze", lengths, one)
    is_token = b.op("Less", steps, lengths_by_row)
    is_token = b.op("Reshape", is_token, b.constant([-1]), name="is_token")
    source = b.op("Reshape", b.op("Add", b.op("Unsqueeze", row_starts, one), steps), b.constant([-1]))
    ids = b.op("Gather", packed.ids, b.op("Compress", source, is_token, axis=0), name="ids")
    ends = b.op("CumSum", lengths, b.constant(0), name="own_ends")
    starts = b.op("Sub", ends, lengths, name="own_starts")
    within = b.op("Min", steps, b.op("Sub", lengths_by_row, one))
    cells = b.op("Range", b.constant(0), b.op("Size", is_token), b.constant(1))
    return TextGroup(
        packed=dataclasses.replace(
            packed, ids=ids, row_starts=starts, row_ends=ends, last_tokens=b.op("Sub", ends, one)
        ),
        lengths=lengths,
        max_length=max_length,
        token_of_cell=b.op("Add", b.op("Unsqueeze", starts, one), within, name="token_of_cell"),
        cell_of_token=b.op("Compress", cells, is_token, axis=0, name="cell_of_token"),
        prefix=prefix,
    )
