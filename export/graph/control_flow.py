"""Control flow: a Loop whose outputs are concatenated, and an If of two branches."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ..onnx_builder import GraphBuilder

_INDEX = ir.TensorType(ir.DataType.INT64)
_CONDITION = ir.TensorType(ir.DataType.BOOL)


def concat_loop(
    g: GraphBuilder,
    name: str,
    count: ir.Value,
    dtype: ir.DataType,
    body: Callable[[GraphBuilder, ir.Value], ir.Value],
    axis: int = 0,
) -> ir.Value:
    """Run `body` for every index INT64 [] below `count` INT64 [1] and concatenate its outputs of `dtype` on `axis`.

    Nodes of the body are named in the scope of the loop.
    """
    b = g.body()
    with b.scope(name):
        index = ir.Value(name=b.unique_name("index"), type=_INDEX, shape=ir.Shape([]))
        condition = ir.Value(name=b.unique_name("go_on"), type=_CONDITION, shape=ir.Shape([]))
        sequence = ir.SequenceType(ir.TensorType(dtype))
        outputs = ir.Value(name=b.unique_name("done"), type=sequence)
    output = body(b, index)
    with b.scope(name):
        extended = b.op("SequenceInsert", outputs, output, name="extended")
        extended.type = sequence
        unchanged = b.op("Identity", condition, name="still")
        unchanged.type, unchanged.shape = _CONDITION, ir.Shape([])
        graph = ir.Graph([index, condition, outputs], [unchanged, extended], nodes=b.nodes, name=b.unique_name("body"))
    with g.scope(name):
        empty = g.op("SequenceEmpty", dtype=dtype)
        collected = g.op("Loop", count, None, empty, name="loop", body=graph)
        return g.op("ConcatFromSequence", collected, axis=axis, name="joined")


def if_else(
    g: GraphBuilder,
    name: str,
    condition: ir.Value,
    then: Callable[[GraphBuilder], ir.Value],
    otherwise: Callable[[GraphBuilder], ir.Value],
) -> ir.Value:
    """Return the output of `then` if BOOL [1] `condition` is set, else that of `otherwise`. Only one of them runs."""
    branches = []
    for branch, body in (("then", then), ("else", otherwise)):
        b = g.body()
        output = body(b)
        branches.append(ir.Graph([], [output], nodes=b.nodes, name=g.unique_name(f"{name}.{branch}")))
    with g.scope(name):
        return g.op("If", condition, name="if", then_branch=branches[0], else_branch=branches[1])
