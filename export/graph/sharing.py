"""Shared beginnings: which first tokens a row has in common with the row before it, and which rows are neighbours.

The passages of one query begin with the same tokens after the stored prefix, and so do queries with an instruction that
is not stored. In a causal decoder a token's states depend on nothing that follows, so the rows of a group compute such
tokens once (`group_cells`).

Shapes: G good rows of a batch, m first tokens of a row.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .tokens import PackedTokens

INT64 = ir.DataType.INT64
_LONGEST = 128
"""Tokens of a row that are compared with those of another."""
_TOPIC = 8
"""Tokens in which rows must agree to be put next to each other."""
TOPIC_ROWS = 8
"""Fewest rows that are put next to each other. A group of few rows has lengths that differ more, and so more padding in
attention, which costs more than their beginnings save."""
_LONGER_THAN_ROWS = 2**32
ORDER_KEYS = 2**52
"""All keys of `order_key` are below: a batch has fewer than 2**20 rows."""
_CELLS_PER_TOKEN = 4
"""A row counts for the size of its group as if it computed at least one of this many tokens: attention has a cell for
every token, shared or not."""
_NO_TOKEN, _NO_ROW = -1, -2
_HASH_SEED = 5


def row_beginnings(g: GraphBuilder, packed: PackedTokens, starts: ir.Value, lengths: ir.Value) -> ir.Value:
    """Return INT64 [G, m]: the first ids of each row, and _NO_TOKEN after its end.

    Args:
        g: Builder.
        packed: Tokens of the batch.
        starts: INT64 [G]: index of each row's first token.
        lengths: INT64 [G]: tokens of each row.
    """
    one = g.constant([1])
    steps = g.table("sharing.steps", np.arange(_LONGEST, dtype=np.int64))
    last = g.op("Sub", g.op("Shape", packed.ids), one)
    places = g.op("Min", g.op("Add", g.op("Unsqueeze", starts, one), steps), last)
    ids = g.op("Gather", packed.ids, places, axis=0)
    inside = g.op("Less", steps, g.op("Unsqueeze", lengths, one))
    return g.op("Where", inside, ids, g.constant(_NO_TOKEN), name="beginnings")


def row_topics(g: GraphBuilder, beginnings: ir.Value) -> ir.Value:
    """Return INT64 [G]: a number from 1 for each set of TOPIC_ROWS or more rows that begin alike; 0 for other rows.

    A collision of the hash only moves a row.
    """
    factors = np.random.default_rng(_HASH_SEED).integers(1, 2**40, _TOPIC)
    first = g.op("Slice", beginnings, g.constant([0]), g.constant([_TOPIC]), g.constant([1]))
    products = g.op("Mul", first, g.table("sharing.factors", factors))
    hashes = g.op("ReduceSum", products, g.constant([1]), keepdims=0, name="hash")
    by_hash, order = g.ops("TopK", hashes, g.op("Shape", hashes), largest=0, sorted=1, name="by_hash", outputs=2)
    is_start = differs_from_previous(g, by_hash)
    number = g.op("Sub", g.op("CumSum", g.op("Cast", is_start, to=INT64), g.constant(0)), g.constant(1))
    zeros = g.op("Mul", number, g.constant(0))
    ones = g.op("Add", zeros, g.constant(1))
    rows = g.op("ScatterElements", zeros, number, ones, axis=0, reduction="add", name="rows_by_hash")
    is_large = g.op("GreaterOrEqual", g.op("Gather", rows, number), g.constant(TOPIC_ROWS), name="is_large")
    starts = g.op("Cast", g.op("And", is_start, is_large), to=INT64)
    topics = g.op("Where", is_large, g.op("CumSum", starts, g.constant(0)), g.constant(0))
    _, place = g.ops("TopK", order, g.op("Shape", hashes), largest=0, sorted=1, name="place_by_hash", outputs=2)
    return g.op("Gather", topics, place, axis=0, name="topic")


def order_key(g: GraphBuilder, topics: ir.Value, lengths: ir.Value) -> ir.Value:
    """Return INT64 [G]: orders rows by topic, and by length in turns up and down, so that neighbours differ little."""
    is_down = g.op("Equal", g.op("Mod", topics, g.constant(2)), g.constant(1))
    down = g.op("Sub", g.constant(_LONGER_THAN_ROWS - 1), lengths)
    return g.op(
        "Add",
        g.op("Mul", topics, g.constant(_LONGER_THAN_ROWS)),
        g.op("Where", is_down, down, lengths),
        name="by_topic",
    )


def count_shared(g: GraphBuilder, beginnings: ir.Value) -> ir.Value:
    """Return INT64 [G]: first tokens that each row has in common with the row before it in `beginnings` [G, m]."""
    before_first = g.table("sharing.before_first", np.full((1, _LONGEST), _NO_ROW, np.int64))
    previous = g.op("Slice", beginnings, g.constant([0]), g.constant([-1]), g.constant([0]))
    previous = g.op("Concat", before_first, previous, axis=0)
    is_token = g.op("GreaterOrEqual", beginnings, g.constant(0))
    equal = g.op("And", g.op("Equal", beginnings, previous), is_token, name="equals_previous")
    differences = g.op("CumSum", g.op("Cast", g.op("Not", equal), to=INT64), g.constant(1), name="differences")
    agrees = g.op("Cast", g.op("Equal", differences, g.constant(0)), to=INT64)
    return g.op("ReduceSum", agrees, g.constant([1]), keepdims=0, name="shared")


def computed_tokens(g: GraphBuilder, lengths: ir.Value, shared: ir.Value) -> ir.Value:
    """Return INT64 [G]: what each row of `lengths` contributes to the tokens of its group."""
    rounded_up = g.op("Add", lengths, g.constant(_CELLS_PER_TOKEN - 1))
    least = g.op("Div", rounded_up, g.constant(_CELLS_PER_TOKEN))
    return g.op("Max", g.op("Sub", lengths, shared), least, name="computed")


def differs_from_previous(g: GraphBuilder, values: ir.Value) -> ir.Value:
    """Return BOOL [G]: whether each of `values` INT64 [G], none of them -1, differs from the one before it."""
    zero, before_first = g.constant([0]), g.constant([-1])
    previous = g.op("Slice", g.op("Concat", before_first, values, axis=0), zero, before_first, zero)
    return g.op("Not", g.op("Equal", values, previous), name="is_first")
