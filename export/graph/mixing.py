"""How queries share out values: scores of keys, their softmax, the values mixed by it.

A text's queries come in blocks, each over the keys up to its own end: half of the scores of a long text are never
computed, and what is held at a time grows with its length and not with the square of it.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from ..reading.config import ModelConfig
from .builder import MICROSOFT, GraphBuilder
from .control_flow import choose, join_answers

FP32 = ir.DataType.FLOAT
BLOCK_QUERIES = 128
"""Queries of a block; the last one of a text has up to twice as many, so that none has a single query."""
_MASKED = -1e30
"""Added to a score that must have no share."""


def mask_where(g: GraphBuilder, hidden: ir.Value, name: str) -> ir.Value:
    """FP32, what is added to scores: nothing, or what leaves no share where BOOL `hidden` is set."""
    return g.op("Where", hidden, g.scalar(_MASKED, FP32), g.scalar(0.0, FP32), name=name)


def share_keys(
    g: GraphBuilder, config: ModelConfig, dtype: ir.DataType, q: ir.Value, k: ir.Value, mask: ir.Value
) -> ir.Value:
    """[b, kv_heads, group·n, s]: how queries [b, heads, n, head_dim] share keys [b, kv_heads, s, head_dim].

    `mask` is added to the scores [b, heads, n, s].
    """
    # the queries of a key head one below the other
    q = g.op("Reshape", q, g.constant([0, config.kv_heads, -1, config.head_dim]))
    scale = 1.0 / math.sqrt(config.head_dim)
    scores = g.op("FusedMatMul", q, k, name="scores", domain=MICROSOFT, transB=1, alpha=scale)
    shape = g.op("Concat", g.constant([0, config.heads, -1]), g.op("Shape", k, start=2, end=3), axis=0)
    scores = g.op("Reshape", scores, shape)
    # Softmax in fp16 is taken apart on a CPU, and then adds up in an order that depends on the company
    scores = scores if dtype == FP32 else g.op("Cast", scores, to=FP32)
    shares = g.op("Softmax", g.op("Add", scores, mask, name="masked"), axis=-1, name="shares")
    shares = shares if dtype == FP32 else g.op("Cast", shares, to=dtype)
    back = g.op("Concat", g.constant([0, config.kv_heads, -1]), g.op("Shape", k, start=2, end=3), axis=0)
    return g.op("Reshape", shares, back)


def count_blocks(g: GraphBuilder, longest: ir.Value) -> ir.Value:
    """INT64 [1]: into how many blocks `longest` INT64 [1] queries go."""
    return g.op("Max", g.op("Div", longest, g.constant([BLOCK_QUERIES])), g.constant([1]), name="blocks")


def mix_causally(
    g: GraphBuilder,
    config: ModelConfig,
    dtype: ir.DataType,
    blocks: ir.Value,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
) -> ir.Value:
    """[b, heads, s, head_dim]: each query's mix of the values up to its own place.

    q is [b, heads, s, head_dim], k and v are [b, kv_heads, s, head_dim]; `blocks` as from `count_blocks`.
    """

    def mix(b: GraphBuilder, first: ir.Value, queries: ir.Value, keys: ir.Value, values: ir.Value) -> ir.Value:
        """`queries` stand at `first` and behind it, the last of them where the last key stands."""
        ends = b.op("Squeeze", b.op("Shape", keys, start=2, end=3))
        steps = b.op("Range", b.constant(0), ends, b.constant(1))
        asking = b.op("Range", b.op("Squeeze", first), ends, b.constant(1))
        later = b.op("Greater", steps, b.op("Unsqueeze", asking, b.constant([1])))
        shares = share_keys(b, config, dtype, queries, keys, mask_where(b, later, "causal"))
        context = b.op("MatMul", shares, values, name="context")
        return b.op("Reshape", context, b.constant([0, config.heads, -1, config.head_dim]))

    def mix_block(b: GraphBuilder, index: ir.Value) -> ir.Value:
        with b.scope("block"):
            zero, axis = b.constant([0]), b.constant([2])
            number = b.op("Reshape", index, b.constant([1]))
            start = b.op("Mul", number, b.constant([BLOCK_QUERIES]), name="start")
            behind = b.op("Add", number, b.constant([1]))
            end = b.op("Mul", behind, b.constant([BLOCK_QUERIES]))
            end = b.op("Where", b.op("Equal", behind, blocks), b.op("Shape", q, start=2, end=3), end, name="end")
            queries = b.op("Slice", q, start, end, axis, name="queries")
            keys, values = (
                b.op("Slice", grid, zero, end, axis, name=name) for grid, name in ((k, "keys"), (v, "values"))
            )
            return mix(b, start, queries, keys, values)

    return choose(
        g,
        "mix",
        g.op("Equal", blocks, g.constant([1]), name="one_block"),
        lambda b: mix(b, b.constant([0]), q, k, v),
        lambda b: join_answers(b, "blocks", blocks, dtype, mix_block, axis=2),
    )
