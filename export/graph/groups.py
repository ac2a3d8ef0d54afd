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
from .group_cells import own_cells, share_cells
from .prefixes import GroupPrefix, MatchedRows
from .sharing import (
    ORDER_KEYS,
    computed_tokens,
    count_shared,
    differs_from_previous,
    order_key,
    row_beginnings,
    row_topics,
)
from .tokens import PackedTokens

GROUP_TOKENS = 384
"""A group ends with the text that reaches a multiple of this; a longer text is a group of its own."""
_PREFIX_SHARE = 8
"""This many tokens of a row's prefix count as one token of a group: only their keys and values are copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextGroup:
    """The packed tokens of one group, and its rows as a padded grid [b, s], without the prefix.

    Cells after the end of a row repeat its last token.
    """

    packed: PackedTokens
    """`ids` and `last_tokens` are those of the group, everything else is the batch's."""
    lengths: ir.Value
    """INT64 [b]"""
    max_length: ir.Value
    """INT64 [1]: s, the length of the longest row."""
    token_of_cell: ir.Value
    """INT64 [b, s]: index of a cell's token in the packed tokens."""
    cell_of_token: ir.Value
    """INT64 [t]: index of a token's cell in the flattened grid; of several, that of the first row."""
    prefix: GroupPrefix | None
    """None if the graph has no stored prefixes."""


def run_in_groups(
    g: GraphBuilder,
    packed: PackedTokens,
    dtype: ir.DataType,
    body: Callable[[GraphBuilder, TextGroup], ir.Value],
    matched: MatchedRows | None,
    *,
    shares: bool,
) -> ir.Value:
    """Run `body` on every group.

    Args:
        g: Builder.
        packed: Tokens of the batch.
        dtype: Type of the outputs.
        body: Returns the outputs [b, D] of a group.
        matched: The rows' stored prefixes; None if the graph has none.
        shares: Whether rows of a group that begin alike compute these tokens once.

    Returns:
        [G, D] in the order of `packed`.
    """
    with g.scope("groups"):
        zero = g.constant([0])
        starts, lengths = packed.row_starts, g.op("Sub", packed.row_ends, packed.row_starts, name="lengths")
        if matched is not None:
            starts, lengths = matched.own_starts, matched.own_lengths
        count = g.op("Shape", lengths, name="rows")
        rows_in_order = _sort_rows(g, packed, starts, lengths, matched, shares=shares)
        sizes, order, shared = rows_in_order.sizes, rows_in_order.order, rows_in_order.shared
        # a row belongs to the window of equal size that its last token falls into
        ends = g.op("CumSum", sizes, g.constant(0), name="ends")
        tokens = g.op("Gather", ends, g.constant([-1]), axis=0, name="tokens")
        groups = g.op("Div", g.op("Add", tokens, g.constant([GROUP_TOKENS - 1])), g.constant([GROUP_TOKENS]))
        window = g.op("Div", g.op("Add", tokens, g.op("Sub", groups, g.constant([1]))), groups, name="window")
        group = g.op("Div", g.op("Sub", ends, g.constant([1])), window, name="group_of_row")
        is_first = differs_from_previous(g, group)
        if matched is not None:
            sorted_index = g.op("Gather", matched.index, order, axis=0)
            is_first = g.op("Or", is_first, differs_from_previous(g, sorted_index), name="is_first")
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
            of_group = None if shared is None else b.op("Slice", shared, start, end, b.constant([0]))
            group = lay_out_group(
                b, packed, b.op("Gather", starts, rows), b.op("Gather", lengths, rows), prefix, of_group
            )
        return body(b, group)

    outputs = concat_loop(g, "groups", number, dtype, run)
    with g.scope("groups"):
        _, inverse = g.ops("TopK", order, count, largest=0, sorted=1, name="place_of_row", outputs=2)
        return g.op("Gather", outputs, inverse, axis=0, name="answers")


@dataclass(frozen=True, slots=True, kw_only=True)
class _OrderedRows:
    """The rows of a batch in the order of their groups."""

    order: ir.Value
    """INT64 [G]: index of each row in the batch."""
    sizes: ir.Value
    """INT64 [G]: what each row contributes to the size of its group."""
    shared: ir.Value | None
    """INT64 [G]: first tokens that each row has in common with the row before it; None if rows share nothing."""


def _sort_rows(
    g: GraphBuilder,
    packed: PackedTokens,
    starts: ir.Value,
    lengths: ir.Value,
    matched: MatchedRows | None,
    *,
    shares: bool,
) -> _OrderedRows:
    """Order the rows by prefix, topic and length; `starts` and `lengths` are those of their own tokens."""
    count, key, shared = g.op("Shape", lengths), lengths, None
    if shares:
        beginnings = row_beginnings(g, packed, starts, lengths)
        key = order_key(g, row_topics(g, beginnings), lengths)
    if matched is not None:
        index = g.op("Mul", matched.index, g.constant(ORDER_KEYS))
        key = g.op("Add", index, key, name="by_prefix")
    order = g.ops("TopK", key, count, largest=0, sorted=1, name="order", outputs=2)[1]
    sizes = g.op("Gather", lengths, order, axis=0, name="lengths_in_order")
    if shares:
        shared = count_shared(g, g.op("Gather", beginnings, order, axis=0))
        sizes = computed_tokens(g, sizes, shared)
    if matched is not None:
        share = g.op("Div", matched.prefix_length, g.constant(_PREFIX_SHARE))
        sizes = g.op("Add", sizes, g.op("Gather", share, order, axis=0), name="sizes")
    return _OrderedRows(order=order, sizes=sizes, shared=shared)


def _prefix_of_group(b: GraphBuilder, matched: MatchedRows, rows: ir.Value) -> GroupPrefix:
    """Return the prefix that all `rows` INT64 [b] have."""
    index = b.op("Gather", matched.index, b.op("Slice", rows, b.constant([0]), b.constant([1])), name="prefix")
    return GroupPrefix(
        start=b.op("Gather", matched.starts, index, name="prefix_start"),
        length=b.op("Gather", matched.prefix_lengths, index, name="prefix_length"),
        is_used=b.op("Greater", index, b.constant([0]), name="has_prefix"),
    )


def lay_out_group(
    b: GraphBuilder,
    packed: PackedTokens,
    row_starts: ir.Value,
    lengths: ir.Value,
    prefix: GroupPrefix | None,
    shared: ir.Value | None = None,
) -> TextGroup:
    """Return the group of some rows.

    Args:
        b: Builder.
        packed: Tokens of the batch.
        row_starts: INT64 [b]: index of the first own token of each row.
        lengths: INT64 [b]: own tokens of each row.
        prefix: The stored prefix of all rows; None if the graph has none.
        shared: INT64 [b]: own tokens that each row has in common with the row before it; None if rows share nothing.
    """
    one = b.constant([1])
    max_length = b.op("ReduceMax", lengths, b.constant([0]), keepdims=1, name="longest")
    steps = b.op("Range", b.constant(0), b.op("Squeeze", max_length), b.constant(1), name="steps")
    by_row = b.op("Unsqueeze", lengths, one)
    cells = own_cells(b, steps, by_row) if shared is None else share_cells(b, steps, by_row, shared)
    source = b.op("Reshape", b.op("Add", b.op("Unsqueeze", row_starts, one), steps), b.constant([-1]))
    ids = b.op("Gather", packed.ids, b.op("Gather", source, cells.cell_of_token), name="ids")
    return TextGroup(
        packed=dataclasses.replace(packed, ids=ids, last_tokens=cells.last_tokens),
        lengths=lengths,
        max_length=max_length,
        token_of_cell=cells.token_of_cell,
        cell_of_token=cells.cell_of_token,
        prefix=prefix,
    )
