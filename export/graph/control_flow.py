"""A Loop whose answers are put end to end, and a choice between two ways."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ..onnx_builder import GraphBuilder

_INDEX = ir.TensorType(ir.DataType.INT64)
_CONDITION = ir.TensorType(ir.DataType.BOOL)


def join_answers(
    g: GraphBuilder,
    name: str,
    count: ir.Value,
    dtype: ir.DataType,
    body: Callable[[GraphBuilder, ir.Value], ir.Value],
    axis: int = 0,
) -> ir.Value:
    """`body` of every index INT64 [] below `count` INT64 [1], its answers of `dtype` end to end along `axis`.

    Nodes keep the scope that the loop stands in.
    """
    b = g.body()
    with b.scope(name):
        index = ir.Value(name=b.unique_name("index"), type=_INDEX, shape=ir.Shape([]))
        go_on = ir.Value(name=b.unique_name("go_on"), type=_CONDITION, shape=ir.Shape([]))
        sequence = ir.SequenceType(ir.TensorType(dtype))
        done = ir.Value(name=b.unique_name("done"), type=sequence)
    answer = body(b, index)
    with b.scope(name):
        extended = b.op("SequenceInsert", done, answer, name="extended")
        extended.type = sequence
        still = b.op("Identity", go_on, name="still")
        still.type, still.shape = _CONDITION, ir.Shape([])
        graph = ir.Graph([index, go_on, done], [still, extended], nodes=b.nodes, name=b.unique_name("body"))
    with g.scope(name):
        empty = g.op("SequenceEmpty", dtype=dtype)
        answers = g.op("Loop", count, None, empty, name="loop", body=graph)
        return g.op("ConcatFromSequence", answers, axis=axis, name="joined")


def choose(
    g: GraphBuilder,
    name: str,
    condition: ir.Value,
    then: Callable[[GraphBuilder], ir.Value],
    otherwise: Callable[[GraphBuilder], ir.Value],
) -> ir.Value:
    """The answer of `then` where BOOL [1] `condition` is set, else that of `otherwise`; only one of them runs."""
    branches = []
    for branch, body in (("then", then), ("else", otherwise)):
        b = g.body()
        answer = body(b)
        branches.append(ir.Graph([], [answer], nodes=b.nodes, name=g.unique_name(f"{name}.{branch}")))
    with g.scope(name):
        return g.op("If", condition, name="if", then_branch=branches[0], else_branch=branches[1])
