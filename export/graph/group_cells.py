"""The cells of a group's rows and the packed tokens that they show.

    row    own tokens           shared     packed tokens, column by column
    0      q0 q1 a0 a1          0          q0 q1 a0 b0 a1 b1 b2
    1      q0 q1 b0 b1 b2       2

Several cells may have the same packed token: products, norms and the MLP see it once, and attention reads it for every
row. Each value is that of the same operators on the same numbers, so results keep their bits.

Shapes: b rows of a group, s tokens of its longest row, t of its packed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..onnx_builder import GraphBuilder

INT64 = ir.DataType.INT64


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCells:
    """The cells [b, s] of a group's rows and their packed tokens."""

    cell_of_token: ir.Value
    """INT64 [t]: index of a token's cell in the flattened grid; of several, that of the first row."""
    token_of_cell: ir.Value
    """INT64 [b, s]: index of each cell's token; cells after the end of a row repeat its last token."""
    last_tokens: ir.Value
    """INT64 [b]: index of each row's last token."""


def own_cells(g: GraphBuilder, steps: ir.Value, lengths: ir.Value) -> GroupCells:
    """Number the tokens of a group whose rows share none, row by row.

    Args:
        g: Builder.
        steps: INT64 [s]: 0, 1, …
        lengths: INT64 [b, 1]
    """
    last = g.op("Sub", lengths, g.constant([1]))
    is_token = g.op("Reshape", g.op("Less", steps, lengths), g.constant([-1]), name="is_token")
    cells = g.op("Range", g.constant(0), g.op("Size", is_token), g.constant(1))
    ends = g.op("CumSum", lengths, g.constant(0), name="own_ends")
    tokens = g.op("Add", g.op("Sub", ends, lengths), g.op("Min", steps, last), name="token_of_cell")
    return GroupCells(
        cell_of_token=g.op("Compress", cells, is_token, axis=0, name="cell_of_token"),
        token_of_cell=tokens,
        last_tokens=g.op("Sub", g.op("Squeeze", ends, g.constant([1])), g.constant([1]), name="last_tokens"),
    )


def share_cells(g: GraphBuilder, steps: ir.Value, lengths: ir.Value, shared: ir.Value) -> GroupCells:
    """Number the tokens of a group whose rows share some of them, column by column.

    A cell that is shared has the token of the nearest cell above that is not. In the order of columns, that is the
    number of such cells up to and including its row, after all those of earlier columns.

    Args:
        g: Builder.
        steps: INT64 [s]: 0, 1, …
        lengths: INT64 [b, 1]
        shared: INT64 [b]: first tokens that each row has in common with the row before it, which may be of another
            group.
    """
    one = g.constant([1])
    of_others = g.op("Slice", shared, one, g.constant([2**31 - 1]), g.constant([0]))
    shared = g.op("Unsqueeze", g.op("Concat", g.constant([0]), of_others, axis=0), one, name="shared")
    is_new = g.op("And", g.op("Less", steps, lengths), g.op("GreaterOrEqual", steps, shared), name="is_new")
    counts = g.op("CumSum", g.op("Cast", is_new, to=INT64), g.constant(0), name="new_in_column")
    in_column = g.op("Gather", counts, g.constant([-1]), axis=0)
    before = g.op("CumSum", in_column, g.constant(1), name="new_before", exclusive=1)
    tokens = g.op("Sub", g.op("Add", counts, before), one)
    last = g.op("Sub", lengths, one)
    cells = g.op("Range", g.constant(0), g.op("Size", is_new), g.constant(1))
    cells = g.op("Transpose", g.op("Reshape", cells, g.op("Shape", is_new)), perm=[1, 0])
    flat = g.constant([-1])
    is_new_by_column = g.op("Reshape", g.op("Transpose", is_new, perm=[1, 0]), flat)
    return GroupCells(
        cell_of_token=g.op("Compress", g.op("Reshape", cells, flat), is_new_by_column, axis=0, name="cell_of_token"),
        token_of_cell=g.op("GatherElements", tokens, g.op("Min", steps, last), axis=1, name="token_of_cell"),
        last_tokens=g.op("Squeeze", g.op("GatherElements", tokens, last, axis=1), one, name="last_tokens"),
    )
