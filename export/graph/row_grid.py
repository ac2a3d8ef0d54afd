"""Right-padded rows of a batch, and how values move between them and packed tokens; computed once for all layers.

    packed [T]   a0 a1 a2 b0 │ cells [G, W]   a0 a1 a2 │ token_of_cell [G, W]   0 1 2 │ cell_of_token [T]   0 1 2 3
                             │                b0 ·  ·  │                        3 3 3 │

If nearly all cells hold a token, it is cheaper to compute the padding, too, than to move values in every layer. Such a
batch is dense: its tokens are the cells of its rows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .decoder import DecoderParts
from .tokens import PackedTokens, max_row_length

INT32 = ir.DataType.INT32
DENSE_CELLS, DENSE_TOKENS = 9, 8
"""A batch is dense if its rows, padded to the longest, have at most 9 cells per 8 tokens. On an H100, moving packed
tokens into rows and back takes 15 to 30 % of a layer."""


@dataclass(frozen=True, slots=True)
class RowColumns:
    """The columns of the rows of a batch.

    Its sizes are taken from shapes in each branch of the graph: what a branch computes from a shape stays on the host,
    but a value from outside would be copied to the GPU and back.
    """

    columns: ir.Value
    """INT64 [W]: 0, 1, …"""

    def width(self, g: GraphBuilder) -> ir.Value:
        """Return INT64 [1] in host memory: W, the tokens of the longest row."""
        return g.op("Shape", self.columns, name="width")

    def cells(self, g: GraphBuilder, packed: PackedTokens) -> ir.Value:
        """Return INT64 [1] in host memory: G · W."""
        return g.op("Mul", self.width(g), g.op("Shape", packed.lengths), name="cell_count")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMoves:
    """Indices that move values of packed tokens into cells and back.

    RestorePadding copies row i of its input to row offsets[i] of its output, four times as fast as Gather. It only
    exists for fp16 and fp32.
    """

    token_of_cell: ir.Value
    """INT64 [G, W]: index of each cell's packed token; cells after the end of a row repeat its last token."""
    cell_of_token: ir.Value
    """INT64 [T]: index of each packed token's cell in the flattened grid [G·W]."""
    offsets: ir.Value | None = None
    """INT32 [G, W]: the cell of each token, followed by all cells of padding; None to use Gather."""
    inverse: ir.Value | None = None
    """INT32 [G, W]: the place of each cell in `offsets`; None to use Gather."""
    token_count: ir.Value | None = None
    """INT64 [1] in host memory: T; None to use Gather."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGrid:
    """G rows of width W."""

    last_cells: ir.Value
    """INT64 [G]: index of the cell of each row's last token."""
    seqlens_k: ir.Value
    """INT32 [G]: length of each row less one, GroupQueryAttention's input of that name."""
    width: ir.Value
    """INT32 [1] in host memory: W."""
    moves: RowMoves | None
    """None if the batch is dense."""


def measure_rows(g: GraphBuilder, packed: PackedTokens) -> RowColumns:
    """Return the columns of a batch's rows; the host waits for their number once."""
    width = g.op("Squeeze", max_row_length(g, packed), name="width")
    return RowColumns(g.op("Range", g.constant(0), width, g.constant(1), name="columns"))


def batch_is_dense(g: GraphBuilder, packed: PackedTokens, rows: RowColumns) -> ir.Value:
    """Return BOOL [1] in host memory: whether the batch is to be computed as a dense one."""
    padded = g.op("Mul", rows.cells(g, packed), g.constant([DENSE_TOKENS]))
    tokens = g.op("Mul", g.op("Shape", packed.ids), g.constant([DENSE_CELLS]))
    return g.op("LessOrEqual", padded, tokens, name="is_dense")


def lay_out_rows(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, rows: RowColumns) -> RowGrid:
    """Compute the grid of packed tokens: a dozen small kernels, and values that the host waits for."""
    token_of_cell = _token_of_cell(g, packed, rows)
    inside = g.op("Less", rows.columns, g.op("Unsqueeze", packed.lengths, g.constant([1])), name="inside")
    inside = g.op("Reshape", inside, g.constant([-1]))
    cells = g.op("Range", g.constant(0), g.op("Squeeze", rows.cells(g, packed)), g.constant(1), name="cells")
    cell_of_token = g.op("Compress", cells, inside, axis=0, name="places")
    moves = RowMoves(token_of_cell=token_of_cell, cell_of_token=cell_of_token)
    if parts.cuda is not None and parts.cuda.restores_padding(parts.format.activations):
        padding = g.op("Compress", cells, g.op("Not", inside), axis=0, name="padding")
        order = g.op("Concat", cell_of_token, padding, axis=0, name="offsets")
        places = g.op("ScatterElements", cells, order, cells, axis=0, name="inverse")
        shape = g.op("Concat", g.constant([-1]), rows.width(g), axis=0)
        moves = dataclasses.replace(
            moves,
            offsets=g.op("Reshape", g.op("Cast", order, to=INT32), shape),
            inverse=g.op("Reshape", g.op("Cast", places, to=INT32), shape),
            token_count=g.op("Shape", packed.ids, name="token_count"),
        )
    last_cells = g.op("Gather", cell_of_token, packed.last_tokens, axis=0, name="last_places")
    return _grid(g, packed, rows, last_cells, moves)


def lay_out_dense_rows(g: GraphBuilder, packed: PackedTokens, rows: RowColumns) -> tuple[PackedTokens, RowGrid]:
    """Return the cells [G, W] of a dense batch in place of its packed tokens, and their grid."""
    width = g.op("Squeeze", rows.width(g))
    row_count = g.op("Squeeze", g.op("Shape", packed.lengths))
    row_numbers = g.op("Range", g.constant(0), row_count, g.constant(1), name="row_numbers")
    last = g.op("Sub", packed.lengths, g.constant([1]))
    last_cells = g.op("Add", g.op("Mul", row_numbers, width), last, name="last_cells")
    ids = g.op("Gather", packed.ids, _token_of_cell(g, packed, rows), axis=0, name="cell_ids")
    return dataclasses.replace(packed, ids=ids, last_tokens=last_cells), _grid(g, packed, rows, last_cells, None)


def _token_of_cell(g: GraphBuilder, packed: PackedTokens, rows: RowColumns) -> ir.Value:
    last = g.op("Sub", packed.lengths, g.constant([1]), name="last_position")
    column = g.op("Min", rows.columns, g.op("Unsqueeze", last, g.constant([1])))
    return g.op("Add", g.op("Unsqueeze", packed.row_starts, g.constant([1])), column, name="tokens")


def _grid(
    g: GraphBuilder, packed: PackedTokens, rows: RowColumns, last_cells: ir.Value, moves: RowMoves | None
) -> RowGrid:
    return RowGrid(
        last_cells=last_cells,
        seqlens_k=g.op("Cast", g.op("Sub", packed.lengths, g.constant([1])), to=INT32),
        width=g.op("Cast", rows.width(g), to=INT32, name="host_width"),
        moves=moves,
    )
