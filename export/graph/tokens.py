"""Token bookkeeping: from ragged rows with padding anywhere to packed tokens of the good rows.

Shapes: N ids on the wire, Q requests, R rows, T packed tokens, G good rows (both at least 1, see `_never_empty`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...client.manifest import INPUT_IDS, LOST_ROW_BITS, REQUEST_LENGTHS, ROW_LENGTHS
from ..onnx_builder import GraphBuilder

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
    row_is_lost: ir.Value
    """BOOL [R]: the row's ids are not those that were sent, see `_row_is_lost`."""
    rank_of_row: ir.Value
    """INT64 [R]: a good row's index among the good ones; 0 for a bad one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireInputs:
    """The graph's inputs."""

    input_ids: ir.Value
    row_lengths: ir.Value
    request_lengths: ir.Value

    def __iter__(self) -> Iterator[ir.Value]:
        """Iterate over the inputs in the order in which the graph declares them."""
        return iter((self.input_ids, self.row_lengths, self.request_lengths))


def declare_inputs() -> WireInputs:
    """Declare `input_ids` INT64 [N], all rows end to end, `row_lengths` INT32 [R] and `request_lengths` INT32 [Q]."""
    return WireInputs(
        input_ids=ir.Value(name=INPUT_IDS, type=ir.TensorType(INT64), shape=ir.Shape(["ids"])),
        row_lengths=ir.Value(name=ROW_LENGTHS, type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["rows"])),
        request_lengths=ir.Value(
            name=REQUEST_LENGTHS, type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["requests"])
        ),
    )


def pack_tokens(g: GraphBuilder, inputs: WireInputs, *, vocabulary: int, max_tokens: int) -> PackedTokens:
    """Drop the padding and every token of a bad row.

    A row is bad without a token, with an id outside the vocabulary, with more than `max_tokens`, or when it is lost.
    """
    ids = inputs.input_ids
    widths = g.op("Cast", inputs.row_lengths, to=INT64, name="row_widths")
    row_ends = g.op("CumSum", widths, g.constant(0), name="row_ends")
    row_of_id = _row_of_id(g, inputs, row_ends)
    lost = _row_is_lost(g, inputs, widths, row_ends)
    is_token = g.op("GreaterOrEqual", ids, g.constant(0), name="is_token")
    is_foreign = g.op("GreaterOrEqual", ids, g.constant(vocabulary), name="is_foreign")
    zeros = g.op("Mul", widths, g.constant(0), name="zero_per_row")
    length = _count(g, zeros, row_of_id, is_token, "length")
    foreign = _count(g, zeros, row_of_id, is_foreign, "foreign")
    fits = g.op(
        "And",
        g.op("Greater", length, g.constant(0)),
        g.op("LessOrEqual", length, g.constant(max_tokens)),
        name="length_fits",
    )
    valid = g.op("And", fits, g.op("Equal", foreign, g.constant(0)), name="row_is_valid")
    good = g.op("And", valid, g.op("Not", lost), name="row_is_good")
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
        row_is_lost=lost,
        rank_of_row=g.op("Max", rank, g.constant(0), name="rank_of_row"),
    )


def _row_is_lost(g: GraphBuilder, inputs: WireInputs, widths: ir.Value, ends: ir.Value) -> ir.Value:
    """BOOL [R]: whether a row with ids, of `widths` and `ends` INT64 [R], was sent behind a request without any.

    Triton's C++ backends stop copying ids at the first request of a batch that has none. What follows is memory of
    earlier batches, which must not be computed.
    """
    lengths = g.op("Cast", inputs.request_lengths, to=INT64, name="request_lengths")
    is_empty = g.op("Sub", g.constant(1), g.op("Min", lengths, g.constant(1)), name="request_is_empty")
    empty_so_far = g.op("CumSum", is_empty, g.constant(0), name="empty_requests")
    copied = g.op("Where", g.op("Equal", empty_so_far, g.constant(0)), lengths, g.constant(0), name="copied")
    # a running sum's last element, because ReduceSum would need cuDNN on a GPU
    ids_copied = g.op("Gather", g.op("CumSum", copied, g.constant(0)), g.constant([-1]), axis=0, name="ids_copied")
    behind = g.op("Greater", ends, ids_copied)
    return g.op("And", behind, g.op("Greater", widths, g.constant(0)), name="row_is_lost")


def _row_of_id(g: GraphBuilder, inputs: WireInputs, ends: ir.Value) -> ir.Value:
    """INT64 [N]: which row each id stands in.

    A one is added where each row ends (`ends` INT64 [R]) and summed up; the place behind the last id is cut off again.
    """
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
    """FP32 [R, D] from `answers` FP32 [G, D]; NaN where the row is bad, of other bits where it is lost."""
    rows = g.op("Gather", answers, packed.rank_of_row, axis=0)
    good = g.op("Unsqueeze", packed.row_is_good, g.constant([1]))
    nan = g.table("constant.nan", np.asarray(np.nan, np.float32))
    lost_nan = g.table("constant.lost", np.asarray(LOST_ROW_BITS, np.uint32).view(np.float32))
    lost = g.op("Unsqueeze", packed.row_is_lost, g.constant([1]))
    return g.op("Where", good, rows, g.op("Where", lost, lost_nan, nan))
