"""Token bookkeeping: from ragged rows with padding anywhere to packed tokens of the good rows.

Shapes: N ids on the wire, R rows, T packed tokens, G good rows (both at least 1, see `_never_empty`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...client.contract import INPUT_IDS, ROW_LENGTHS
from .builder import GraphBuilder

INT64 = ir.DataType.INT64


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTokens:
    """The real tokens of the good rows, end to end."""

    ids: ir.Value
    """INT64 [T]"""
    starts: ir.Value
    """INT64 [G]: index of each good row's first token."""
    ends: ir.Value
    """INT64 [G]: one behind its last token."""
    lengths: ir.Value
    """INT64 [G], each at least 1."""
    last: ir.Value
    """INT64 [G]: index of its last token."""
    row_is_good: ir.Value
    """BOOL [R]"""
    rank_of_row: ir.Value
    """INT64 [R]: a good row's index among the good ones; 0 for a bad one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireInputs:
    """The graph's two inputs."""

    input_ids: ir.Value
    row_lengths: ir.Value


def declare_inputs() -> WireInputs:
    """`input_ids` INT64 [N], all rows end to end, and `row_lengths` INT32 [R]."""
    return WireInputs(
        input_ids=ir.Value(name=INPUT_IDS, type=ir.TensorType(INT64), shape=ir.Shape(["ids"])),
        row_lengths=ir.Value(name=ROW_LENGTHS, type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["rows"])),
    )


def pack_tokens(g: GraphBuilder, inputs: WireInputs, *, vocabulary: int, max_tokens: int) -> PackedTokens:
    """Drops the padding and every token of a bad row.

    A row is bad without a token, with an id that the vocabulary lacks, or with more than `max_tokens`.
    """
    ids = inputs.input_ids
    row_of_id = _row_of_id(g, inputs)
    is_token = g.op("GreaterOrEqual", ids, g.constant(0), name="is_token")
    is_foreign = g.op("GreaterOrEqual", ids, g.constant(vocabulary), name="is_foreign")
    zeros = g.op("Mul", g.op("Cast", inputs.row_lengths, to=INT64), g.constant(0), name="zero_per_row")
    length = _count(g, zeros, row_of_id, is_token, "length")
    foreign = _count(g, zeros, row_of_id, is_foreign, "foreign")
    fits = g.op(
        "And",
        g.op("Greater", length, g.constant(0)),
        g.op("LessOrEqual", length, g.constant(max_tokens)),
        name="length_fits",
    )
    good = g.op("And", fits, g.op("Equal", foreign, g.constant(0)), name="row_is_good")
    keep = g.op("And", is_token, g.op("Gather", good, row_of_id), name="keep")
    packed = g.op("Compress", ids, keep, axis=0, name="packed")
    lengths = g.op("Compress", length, good, axis=0, name="good_lengths")
    filler = _never_empty(g, lengths)
    lengths = g.op("Concat", lengths, filler, axis=0, name="lengths")
    ends = g.op("CumSum", lengths, g.constant(0), name="ends")
    rank = g.op("Sub", g.op("CumSum", g.op("Cast", good, to=INT64), g.constant(0)), g.constant(1))
    return PackedTokens(
        ids=g.op("Concat", packed, g.op("Mul", filler, g.constant(0)), axis=0, name="ids"),
        starts=g.op("Sub", ends, lengths, name="starts"),
        ends=ends,
        lengths=lengths,
        last=g.op("Sub", ends, g.constant(1), name="last"),
        row_is_good=good,
        rank_of_row=g.op("Max", rank, g.constant(0), name="rank_of_row"),
    )


def _row_of_id(g: GraphBuilder, inputs: WireInputs) -> ir.Value:
    """INT64 [N]: which row each id stands in.

    A one is added where each row ends and summed up; the place behind the last id is cut off again.
    """
    ends = g.op("CumSum", g.op("Cast", inputs.row_lengths, to=INT64), g.constant(0), name="row_ends")
    blank = g.op("Concat", g.op("Mul", inputs.input_ids, g.constant(0)), g.constant([0]), axis=0)
    ones = g.op("Add", g.op("Mul", ends, g.constant(0)), g.constant(1))
    marks = g.op("ScatterElements", blank, ends, ones, axis=0, reduction="add", name="row_marks")
    summed = g.op("CumSum", marks, g.constant(0))
    return g.op("Slice", summed, g.constant([0]), g.constant([-1]), g.constant([0]), name="row_of_id")


def _count(g: GraphBuilder, zeros: ir.Value, row_of_id: ir.Value, flags: ir.Value, name: str) -> ir.Value:
    """INT64 [R]: how many `flags` [N] are set in each row."""
    ones = g.op("Cast", flags, to=INT64)
    return g.op("ScatterElements", zeros, row_of_id, ones, axis=0, reduction="add", name=name)


def _never_empty(g: GraphBuilder, lengths: ir.Value) -> ir.Value:
    """INT64 [1] with a one where no good row is left, else [0].

    A batch of bad rows only would leave every later tensor empty, so one filler row of one token stands
    in; no output row reads it.
    """
    none_left = g.op("Equal", g.op("Size", lengths), g.constant(0))
    missing = g.op("Cast", none_left, to=INT64)
    shape = g.op("Reshape", missing, g.constant([1]))
    return g.op("Expand", g.constant(1), shape, name="filler")


def longest_row(g: GraphBuilder, packed: PackedTokens) -> ir.Value:
    """INT64 [1]: most tokens of a row; TopK, because ReduceMax would need cuDNN on a GPU."""
    return g.ops("TopK", packed.lengths, g.constant([1]), outputs=2, name="longest")[0]


def spread_to_rows(g: GraphBuilder, packed: PackedTokens, answers: ir.Value) -> ir.Value:
    """FP32 [R, D] from `answers` FP32 [G, D]; NaN where the row is bad."""
    rows = g.op("Gather", answers, packed.rank_of_row, axis=0)
    good = g.op("Unsqueeze", packed.row_is_good, g.constant([1]))
    nan = g.table("constant.nan", np.asarray(np.nan, np.float32))
    return g.op("Where", good, rows, nan)
