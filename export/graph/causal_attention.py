"""How queries share out values: scores of keys, their softmax, the values mixed by it.

A text's queries come in blocks, each over the keys up to its own end: half of the scores of a long text are never
computed, and what is held at a time grows with its length and not with the square of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from ..architectures import DecoderConfig
from ..onnx_builder import MICROSOFT, GraphBuilder
from .control_flow import choose, join_answers

FP32 = ir.DataType.FLOAT
BLOCK_QUERIES = 128
"""Queries of a block; the last one of a text has up to twice as many, so that none has a single query."""
_MASKED = -1e30
"""Added to a score that must have no share."""


def mask_where(g: GraphBuilder, hidden: ir.Value, name: str) -> ir.Value:
    """FP32, what is added to scores: nothing, or what leaves no share where BOOL `hidden` is set."""
    return g.op("Where", hidden, g.scalar(_MASKED, FP32), g.scalar(0.0, FP32), name=name)


def stack_queries(g: GraphBuilder, config: DecoderConfig, q: ir.Value) -> ir.Value:
    """[b, kv_heads, group·n, head_dim], the queries of a key head one below the other, from [b, heads, n, head_dim]."""
    return g.op("Reshape", q, g.constant([0, config.kv_heads, -1, config.head_dim]))


def attention_weights(
    g: GraphBuilder, config: DecoderConfig, dtype: ir.DataType, q: ir.Value, k: ir.Value, mask: ir.Value
) -> ir.Value:
    """[b, kv_heads, group·n, s]: how queries, as stacked by `stack_queries`, share keys [b, kv_heads, s, head_dim].

    `mask` is added to the scores [b, heads, n, s].
    """
    scale = 1.0 / math.sqrt(config.head_dim)
    scores = g.op("FusedMatMul", q, k, name="scores", domain=MICROSOFT, transB=1, alpha=scale)
    # a dimension of 0 stays what it is
    scores = g.op("Reshape", scores, g.constant([0, config.heads, -1, 0]))
    # Softmax in fp16 is taken apart on a CPU, and then adds up in an order that depends on the company
    scores = scores if dtype == FP32 else g.op("Cast", scores, to=FP32)
    shares = g.op("Softmax", g.op("Add", scores, mask, name="masked"), axis=-1, name="shares")
    shares = shares if dtype == FP32 else g.op("Cast", shares, to=dtype)
    return g.op("Reshape", shares, g.constant([0, config.kv_heads, -1, 0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryBlocks:
    """How a row's queries go in blocks, the same in every layer."""

    count: ir.Value
    """INT64 [1]"""
    one: ir.Value
    """BOOL [1]: whether there is one."""
    mask: ir.Value
    """FP32 [n, n]: what is added to the scores of the only block, n being s where there is one."""


def lay_out_blocks(g: GraphBuilder, longest: ir.Value) -> QueryBlocks:
    """The blocks of rows of up to `longest` INT64 [1] tokens."""
    count = g.op("Max", g.op("Div", longest, g.constant([BLOCK_QUERIES])), g.constant([1]), name="blocks")
    size = g.op("Min", longest, g.constant([2 * BLOCK_QUERIES - 1]))
    one = g.op("Equal", count, g.constant([1]), name="one_block")
    return QueryBlocks(count=count, one=one, mask=_mask_later(g, g.constant([0]), size))


def _mask_later(g: GraphBuilder, first: ir.Value, end: ir.Value) -> ir.Value:
    """FP32 [end - first, end]: queries at INT64 [1] `first` and behind it do not see keys behind their own place."""
    last = g.op("Squeeze", end)
    steps = g.op("Range", g.constant(0), last, g.constant(1))
    asking = g.op("Range", g.op("Squeeze", first), last, g.constant(1))
    return mask_where(g, g.op("Greater", steps, g.op("Unsqueeze", asking, g.constant([1]))), "causal")


def attend_causally(
    g: GraphBuilder,
    config: DecoderConfig,
    dtype: ir.DataType,
    blocks: QueryBlocks,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
) -> ir.Value:
    """Each query's mix of the values up to its own place: [b, heads, s, head_dim], or stacked as by `stack_queries`.

    q is [b, heads, s, head_dim], k and v are [b, kv_heads, s, head_dim]; `blocks` as from `lay_out_blocks`.
    """
    # out here a Reshape changes a shape; inside of a branch, on what comes from outside or goes there, it copies
    stacked = stack_queries(g, config, q)

    def mix(b: GraphBuilder, queries: ir.Value, keys: ir.Value, values: ir.Value, mask: ir.Value) -> ir.Value:
        return b.op("MatMul", attention_weights(b, config, dtype, queries, keys, mask), values, name="context")

    def mix_blocks(b: GraphBuilder) -> ir.Value:
        heads = b.op("Reshape", stacked, b.constant([0, config.heads, -1, config.head_dim]))

        def mix_block(b: GraphBuilder, index: ir.Value) -> ir.Value:
            with b.scope("block"):
                zero, axis = b.constant([0]), b.constant([2])
                number = b.op("Reshape", index, b.constant([1]))
                start = b.op("Mul", number, b.constant([BLOCK_QUERIES]), name="start")
                behind = b.op("Add", number, b.constant([1]))
                end, last = b.op("Mul", behind, b.constant([BLOCK_QUERIES])), b.op("Shape", heads, start=2, end=3)
                end = b.op("Where", b.op("Equal", behind, blocks.count), last, end, name="end")
                queries = stack_queries(b, config, b.op("Slice", heads, start, end, axis, name="queries"))
                keys, values = (
                    b.op("Slice", grid, zero, end, axis, name=name) for grid, name in ((k, "keys"), (v, "values"))
                )
                context = mix(b, queries, keys, values, _mask_later(b, start, end))
                return b.op("Reshape", context, b.constant([0, config.heads, -1, config.head_dim]))

        return join_answers(b, "blocks", blocks.count, dtype, mix_block, axis=2)

    return choose(
        g,
        "mix",
        blocks.one,
        lambda b: mix(b, stacked, k, v, blocks.mask),
        mix_blocks,
    )
