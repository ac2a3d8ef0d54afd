"""Token packing: from ragged rows with padding anywhere to the packed tokens of the good rows.

Shapes: N input ids, Q requests, R rows, T packed tokens, G good rows. T and G are at least 1, see `_filler_row`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...client.manifest import INPUT_IDS, LOST_ROW_BITS, REQUEST_LENGTHS, ROW_LENGTHS, RowStatus
from ..onnx_builder import GraphBuilder

INT64 = ir.DataType.INT64


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTokens:
    """The real tokens of the good rows, concatenated.

    `row_starts` and `row_ends` are cu_seqlens[:-1] and cu_seqlens[1:] of variable-length attention.
    """

    ids: ir.Value
    """INT64 [T]; [G, W] if the tokens are the cells of rows of width W."""
    row_starts: ir.Value
    """INT64 [G]: index of each good row's first token."""
    row_ends: ir.Value
    """INT64 [G]: one past the index of each good row's last token."""
    lengths: ir.Value
    """INT64 [G]: tokens of each good row, at least 1."""
    last_tokens: ir.Value
    """INT64 [G]: index of each good row's last token."""
    row_is_good: ir.Value
    """BOOL [R]"""
    row_is_lost: ir.Value
    """BOOL [R]: whether Triton did not copy the row's ids, see `_row_is_lost`."""
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
    """Declare `input_ids` INT64 [N], all rows concatenated, `row_lengths` INT32 [R], `request_lengths` INT32 [Q]."""
    return WireInputs(
        input_ids=ir.Value(name=INPUT_IDS, type=ir.TensorType(INT64), shape=ir.Shape(["ids"])),
        row_lengths=ir.Value(name=ROW_LENGTHS, type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["rows"])),
        request_lengths=ir.Value(
            name=REQUEST_LENGTHS, type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["requests"])
        ),
    )


def keep_on_host(g: GraphBuilder, inputs: WireInputs) -> WireInputs:
    """Return the inputs as values that ONNX Runtime keeps in host memory, with everything computed from them alone.

    It places a node on the CPU if all its inputs are sizes of shapes, values computed from those, or graph inputs. So
    a zero that comes from a shape is added. On a GPU, the bookkeeping would be some 50 tiny kernels.
    """
    zero = g.op("Mul", g.op("Shape", inputs.input_ids), g.constant([0]), name="host_zero")
    zero32 = g.op("Cast", zero, to=ir.DataType.INT32)
    return WireInputs(
        input_ids=g.op("Add", inputs.input_ids, zero, name="host_ids"),
        row_lengths=g.op("Add", inputs.row_lengths, zero32, name="host_row_lengths"),
        request_lengths=g.op("Add", inputs.request_lengths, zero32, name="host_request_lengths"),
    )


def pack_tokens(g: GraphBuilder, inputs: WireInputs, *, vocabulary: int, max_tokens: int) -> PackedTokens:
    """Drop padding and all tokens of bad rows.

    A row is bad if it has no token, an id outside the vocabulary or more than `max_tokens` tokens, or if it is lost.
    """
    ids = inputs.input_ids
    widths = g.op("Cast", inputs.row_lengths, to=INT64, name="row_widths")
    wire_row_ends = g.op("CumSum", widths, g.constant(0), name="row_ends")
    row_of_id = _row_of_id(g, inputs, wire_row_ends)
    lost = _row_is_lost(g, inputs, widths, wire_row_ends)
    is_token = g.op("GreaterOrEqual", ids, g.constant(0), name="is_token")
    is_unknown = g.op("GreaterOrEqual", ids, g.constant(vocabulary), name="is_foreign")
    zeros = g.op("Mul", widths, g.constant(0), name="zero_per_row")
    length = _count(g, zeros, row_of_id, is_token, "length")
    unknown = _count(g, zeros, row_of_id, is_unknown, "foreign")
    fits = g.op(
        "And",
        g.op("Greater", length, g.constant(0)),
        g.op("LessOrEqual", length, g.constant(max_tokens)),
        name="length_fits",
    )
    valid = g.op("And", fits, g.op("Equal", unknown, g.constant(0)), name="row_is_valid")
    good = g.op("And", valid, g.op("Not", lost), name="row_is_good")
    keep = g.op("And", is_token, g.op("Gather", good, row_of_id), name="keep")
    packed = g.op("Compress", ids, keep, axis=0, name="packed")
    lengths = g.op("Compress", length, good, axis=0, name="good_lengths")
    filler = _filler_row(g, lengths)
    lengths = g.op("Concat", lengths, filler, axis=0, name="lengths")
    row_ends = g.op("CumSum", lengths, g.constant(0), name="ends")
    rank = g.op("Sub", g.op("CumSum", g.op("Cast", good, to=INT64), g.constant(0)), g.constant(1))
    return PackedTokens(
        ids=g.op("Concat", packed, g.op("Mul", filler, g.constant(0)), axis=0, name="ids"),
        row_starts=g.op("Sub", row_ends, lengths, name="starts"),
        row_ends=row_ends,
        lengths=lengths,
        last_tokens=g.op("Sub", row_ends, g.constant(1), name="last"),
        row_is_good=good,
        row_is_lost=lost,
        rank_of_row=g.op("Max", rank, g.constant(0), name="rank_of_row"),
    )


def _row_is_lost(g: GraphBuilder, inputs: WireInputs, widths: ir.Value, row_ends: ir.Value) -> ir.Value:
    """Return BOOL [R]: whether a row that has ids follows a request without any.

    Triton's C++ backends stop copying ids at the first request of a batch that has none. The rest of the buffer holds
    data of earlier batches, which must not be used. `widths` and `row_ends` are INT64 [R].
    """
    lengths = g.op("Cast", inputs.request_lengths, to=INT64, name="request_lengths")
    is_empty = g.op("Sub", g.constant(1), g.op("Min", lengths, g.constant(1)), name="request_is_empty")
    empty_so_far = g.op("CumSum", is_empty, g.constant(0), name="empty_requests")
    copied = g.op("Where", g.op("Equal", empty_so_far, g.constant(0)), lengths, g.constant(0), name="copied")
    # last element of a cumulative sum, because ReduceSum needs cuDNN on a GPU
    ids_copied = g.op("Gather", g.op("CumSum", copied, g.constant(0)), g.constant([-1]), axis=0, name="ids_copied")
    not_copied = g.op("Greater", row_ends, ids_copied)
    return g.op("And", not_copied, g.op("Greater", widths, g.constant(0)), name="row_is_lost")


def _row_of_id(g: GraphBuilder, inputs: WireInputs, row_ends: ir.Value) -> ir.Value:
    """Return INT64 [N]: the row of each id.

    It is the cumulative sum of a one at each index of `row_ends` INT64 [R], without the index past the last id.
    """
    blank = g.op("Concat", g.op("Mul", inputs.input_ids, g.constant(0)), g.constant([0]), axis=0)
    ones = g.op("Add", g.op("Mul", row_ends, g.constant(0)), g.constant(1))
    marks = g.op("ScatterElements", blank, row_ends, ones, axis=0, reduction="add", name="row_marks")
    summed = g.op("CumSum", marks, g.constant(0))
    return g.op("Slice", summed, g.constant([0]), g.constant([-1]), g.constant([0]), name="row_of_id")


def _count(g: GraphBuilder, zeros: ir.Value, row_of_id: ir.Value, flags: ir.Value, name: str) -> ir.Value:
    """Return INT64 [R]: the number of `flags` [N] that are set in each row."""
    ones = g.op("Cast", flags, to=INT64)
    return g.op("ScatterElements", zeros, row_of_id, ones, axis=0, reduction="add", name=name)


def _filler_row(g: GraphBuilder, lengths: ir.Value) -> ir.Value:
    """Return the lengths INT64 of filler rows: [1] if there is no good row, otherwise empty.

    Without it, a batch of bad rows would make all later tensors empty. No output row reads the filler.
    """
    none_left = g.op("Equal", g.op("Shape", lengths), g.constant([0]))
    return g.op("Compress", g.constant([1]), none_left, axis=0, name="filler")


def max_row_length(g: GraphBuilder, packed: PackedTokens) -> ir.Value:
    """Return INT64 [1]: tokens of the longest row. By TopK, because ReduceMax needs cuDNN on a GPU."""
    return g.ops("TopK", packed.lengths, g.constant([1]), outputs=2, name="longest")[0]


def restore_rows(g: GraphBuilder, packed: PackedTokens, outputs: ir.Value) -> ir.Value:
    """Return FP32 [R, D] from `outputs` FP32 [G, D]: NaN for bad rows, with another bit pattern for lost ones."""
    rows = g.op("Gather", outputs, packed.rank_of_row, axis=0, name="results_of_rows")
    good = g.op("Unsqueeze", packed.row_is_good, g.constant([1]), name="good")
    nan = g.table("constant.nan", np.asarray(np.nan, np.float32))
    lost_nan = g.table("constant.lost", np.asarray(LOST_ROW_BITS, np.uint32).view(np.float32))
    lost = g.op("Unsqueeze", packed.row_is_lost, g.constant([1]))
    return g.op("Where", good, rows, g.op("Where", lost, lost_nan, nan, name="nan"), name="restored")


def report_rows(g: GraphBuilder, packed: PackedTokens, results: ir.Value, width: int) -> ir.Value:
    """Return INT32 [R, 1]: the RowStatus of each row of `results` FP32 [R, width], as `restore_rows` returns them.

    A product with ones is NaN if a component of the row is, and needs no cuDNN on a GPU. Results are never infinite.
    """
    valid, invalid, lost = (g.constant(status, np.int32) for status in RowStatus)
    ones = g.table("constant.ones", np.ones((width, 1), np.float32))
    is_nan = g.op("IsNaN", g.op("MatMul", results, ones, name="row_sum"), name="is_nan")
    is_lost = g.op("Unsqueeze", packed.row_is_lost, g.constant([1]))
    return g.op("Where", is_nan, g.op("Where", is_lost, lost, invalid, name="nan_status"), valid, name="status")
