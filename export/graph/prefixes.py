"""Stored prefixes: rows that begin with tokens known at export take their keys and values from tables.

    row      [prefix · own tokens] ─ compare first ids with the stored prefixes ─→ index of the longest match
    layer    [own tokens] ─ keys, values ─┐
             table of the prefix ─────────┴─ concatenate ─→ attention of the own tokens over all tokens

In a causal decoder keys and values depend on nothing that follows, so results keep their bits. `prefix_states` has the
graph that computes the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .state_tables import PrefixTable
from .tokens import PackedTokens

OWN_TOKENS = 2
"""Fewest tokens of a row after its prefix. A product with a single row would use another kernel, which sums in
another order."""
_NO_TOKEN = -1


@dataclass(frozen=True, slots=True)
class StoredPrefix:
    """Token ids of a prefix, and where its states are in the tables."""

    ids: tuple[int, ...]
    start: int
    """Index of the first token's states in the tables."""


@dataclass(frozen=True, slots=True)
class StoredPrefixes:
    """The prefixes of a graph, by ascending length, and the sequences whose states the tables hold.

    A prefix that another one begins with is stored only once.
    """

    prefixes: tuple[StoredPrefix, ...]
    sequences: tuple[tuple[int, ...], ...]
    """None of them begins another one."""

    @property
    def tokens(self) -> int:
        """Tokens in the tables."""
        return sum(map(len, self.sequences))


NO_PREFIXES = StoredPrefixes((), ())


def store_prefixes(prefixes: Iterable[Sequence[int]]) -> StoredPrefixes:
    """Lay out the tables of token ids `prefixes`, none of them empty."""
    by_length = sorted({tuple(ids) for ids in prefixes}, key=lambda ids: (len(ids), ids))
    sequences = [
        ids for ids in by_length if not any(len(ids) < len(other) and other[: len(ids)] == ids for other in by_length)
    ]
    starts = np.cumsum([0, *map(len, sequences)])

    def start(ids: tuple[int, ...]) -> int:
        return next(int(first) for first, held in zip(starts, sequences, strict=False) if held[: len(ids)] == ids)

    return StoredPrefixes(tuple(StoredPrefix(ids, start(ids)) for ids in by_length), tuple(sequences))


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedRows:
    """The prefix of each good row, and its own tokens, which follow."""

    index: ir.Value
    """INT64 [G]: 0 if the row has no prefix, otherwise one more than the index of its prefix."""
    starts: ir.Value
    """INT64 [index]: where the states of each prefix are in the tables; 0 for no prefix."""
    prefix_lengths: ir.Value
    """INT64 [index]: tokens of each prefix; 0 for no prefix."""
    prefix_length: ir.Value
    """INT64 [G]: tokens of each row's prefix."""
    own_starts: ir.Value
    """INT64 [G]: index of each row's first own token in the packed tokens."""
    own_lengths: ir.Value
    """INT64 [G]: own tokens of each row, at least 1."""


def match_prefixes(g: GraphBuilder, packed: PackedTokens, stored: StoredPrefixes) -> MatchedRows:
    """Find the longest stored prefix that each row begins with, and that at least OWN_TOKENS of its tokens follow."""
    longest = len(stored.prefixes[-1].ids)
    ids = np.full((len(stored.prefixes) + 1, longest), _NO_TOKEN, np.int64)
    for place, prefix in enumerate(stored.prefixes, start=1):
        ids[place, : len(prefix.ids)] = prefix.ids
    lengths = np.array([0, *(len(prefix.ids) for prefix in stored.prefixes)], np.int64)
    needed = lengths + np.where(lengths > 0, OWN_TOKENS, 0)
    with g.scope("prefixes"):
        starts = g.table("prefixes.starts", np.array([0, *(prefix.start for prefix in stored.prefixes)], np.int64))
        by_index = g.table("prefixes.lengths", lengths)
        table = g.table("prefixes.ids", ids)
        is_end = g.table("prefixes.is_end", ids == _NO_TOKEN)
        one = g.constant([1])
        # past the end of the row, ids are those of other rows; then the row is too short to match
        last = g.op("Sub", g.op("Shape", packed.ids), one)
        steps = g.table("prefixes.steps", np.arange(longest, dtype=np.int64))
        places = g.op("Min", g.op("Add", g.op("Unsqueeze", packed.row_starts, one), steps), last)
        first_ids = g.op("Unsqueeze", g.op("Gather", packed.ids, places, axis=0), one, name="first_ids")
        equal = g.op("Or", g.op("Equal", first_ids, table), is_end, name="equal")
        begins = g.op("ReduceMin", g.op("Cast", equal, to=ir.DataType.INT32), g.constant([2]), keepdims=0)
        is_longer = g.op("GreaterOrEqual", g.op("Unsqueeze", packed.lengths, one), g.table("prefixes.needed", needed))
        matches = g.op("And", g.op("Cast", begins, to=ir.DataType.BOOL), is_longer, name="matches")
        # a longer prefix has a larger index
        indices = g.table("prefixes.indices", np.arange(len(lengths)))
        matched = g.op("Where", matches, indices, g.constant(0), name="matched")
        index = g.op("ReduceMax", matched, one, keepdims=0, name="index")
        prefix_length = g.op("Gather", by_index, index, axis=0, name="length")
        return MatchedRows(
            index=index,
            starts=starts,
            prefix_lengths=by_index,
            prefix_length=prefix_length,
            own_starts=g.op("Add", packed.row_starts, prefix_length, name="own_starts"),
            own_lengths=g.op("Sub", packed.lengths, prefix_length, name="own_lengths"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPrefix:
    """The prefix that all rows of a group begin with."""

    start: ir.Value
    """INT64 [1]: index of the first token's states in the tables."""
    length: ir.Value
    """INT64 [1]: tokens of the prefix; 0 if the rows have none."""
    is_used: ir.Value
    """BOOL [1]: whether the rows have one."""

    def put_before(self, g: GraphBuilder, table: PrefixTable, own: ir.Value) -> ir.Value:
        """Concatenate the prefix's states and `own` on the axis of tokens, which has size 0 in `shape`.

        `own` has the shape of the table, but with the group's rows as the first axis and their own tokens.
        """
        rows = g.op("Shape", own, start=0, end=1)
        end = g.op("Add", self.start, self.length)
        states = g.op("Slice", table.states, self.start, end, g.constant([table.axis]), name="prefix")
        shape = g.op("Concat", rows, g.constant([1] * (table.axis + 1)), axis=0)
        states = g.op("Expand", states, shape, name="prefix_of_rows")
        return g.op("Concat", states, own, axis=table.axis, name="with_prefix")
