"""Attention from standard operators: scores, softmax and weighted values.

Queries of a long text are processed in blocks, so that memory grows linearly with the length of the text. In causal
attention, a block reads the keys up to its end only, which skips almost half of the scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from ..architectures import DecoderConfig
from ..onnx_builder import MICROSOFT, GraphBuilder
from .control_flow import concat_loop, if_else
from .prefixes import GroupPrefix
from .state_tables import PrefixTable

FP32 = ir.DataType.FLOAT
BLOCK_QUERIES = 128
"""Queries of a block. The last block of a text has up to twice as many, so that no block has a single query."""
_MASKED = -1e30
"""Added to a score whose attention weight must be 0."""


def mask_where(g: GraphBuilder, hidden: ir.Value, name: str) -> ir.Value:
    """Return the FP32 mask to add to scores: 0, or _MASKED where BOOL `hidden` is set."""
    return g.op("Where", hidden, g.scalar(_MASKED, FP32), g.scalar(0.0, FP32), name=name)


def stack_queries(g: GraphBuilder, config: DecoderConfig, q: ir.Value) -> ir.Value:
    """Stack the queries [b, heads, n, head_dim] that share a key head: [b, kv_heads, group·n, head_dim]."""
    return g.op("Reshape", q, g.constant([0, config.kv_heads, -1, config.head_dim]))


def attention_weights(
    g: GraphBuilder, config: DecoderConfig, dtype: ir.DataType, q: ir.Value, k: ir.Value, mask: ir.Value
) -> ir.Value:
    """Return the attention weights [b, kv_heads, group·n, s] of queries over keys [b, kv_heads, s, head_dim].

    `q` is stacked by `stack_queries`; `mask` is added to the scores [b, heads, n, s].
    """
    scale = 1.0 / math.sqrt(config.head_dim)
    scores = g.op("FusedMatMul", q, k, name="scores", domain=MICROSOFT, transB=1, alpha=scale)
    # 0 keeps a dimension
    scores = g.op("Reshape", scores, g.constant([0, config.heads, -1, 0]))
    # the CPU provider decomposes an fp16 Softmax into sums whose order depends on the batch
    scores = scores if dtype == FP32 else g.op("Cast", scores, to=FP32)
    weights = g.op("Softmax", g.op("Add", scores, mask, name="masked"), axis=-1, name="shares")
    weights = weights if dtype == FP32 else g.op("Cast", weights, to=dtype)
    return g.op("Reshape", weights, g.constant([0, config.kv_heads, -1, 0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryBlocks:
    """The query blocks of a row, the same in every layer."""

    count: ir.Value
    """INT64 [1]"""
    is_single: ir.Value
    """BOOL [1]: whether `count` is 1."""
    is_plain: ir.Value
    """BOOL [1]: whether `count` is 1 and the rows have no prefix."""
    mask: ir.Value
    """Added to scores. Of causal attention, FP32 [n, p + n]: the mask of a single block of rows with a prefix of p
    tokens; n is s if there is one, and unused otherwise. Of bidirectional attention, FP32 [b, 1, 1, s]: excludes
    padding from every block."""
    first_key: ir.Value
    """INT64 [1]: p, index of the first query's key."""
    causal: bool


def lay_out_blocks(
    g: GraphBuilder, max_length: ir.Value, prefix: GroupPrefix | None, padding_mask: ir.Value | None
) -> QueryBlocks:
    """Return the blocks of rows of up to `max_length` INT64 [1] own tokens.

    `padding_mask` FP32 [b, 1, 1, s] is that of bidirectional attention. Causal attention needs none, because padding
    follows the tokens.
    """
    count = g.op("Max", g.op("Div", max_length, g.constant([BLOCK_QUERIES])), g.constant([1]), name="blocks")
    size = g.op("Min", max_length, g.constant([2 * BLOCK_QUERIES - 1]))
    is_single = g.op("Equal", count, g.constant([1]), name="one_block")
    first_key, is_plain = g.constant([0]), is_single
    if prefix is not None:
        first_key, is_plain = prefix.length, g.op("And", is_single, g.op("Not", prefix.is_used), name="is_plain")
    causal = padding_mask is None
    mask = padding_mask
    if mask is None:
        mask = _causal_mask(g, first_key, g.op("Add", first_key, size))
    return QueryBlocks(
        count=count, is_single=is_single, is_plain=is_plain, mask=mask, first_key=first_key, causal=causal
    )


def _causal_mask(g: GraphBuilder, first: ir.Value, end: ir.Value) -> ir.Value:
    """Return the causal mask FP32 [end - first, end] of the queries INT64 [1] `first` to `end`, exclusive."""
    count = g.op("Squeeze", end)
    keys = g.op("Range", g.constant(0), count, g.constant(1))
    queries = g.op("Range", g.op("Squeeze", first), count, g.constant(1))
    return mask_where(g, g.op("Greater", keys, g.op("Unsqueeze", queries, g.constant([1]))), "causal")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixHeads:
    """Keys and values of a group's prefix in one layer: tables [1, kv_heads, tokens, head_dim]."""

    prefix: GroupPrefix
    keys: PrefixTable
    values: PrefixTable


def attend_in_blocks(
    g: GraphBuilder,
    config: DecoderConfig,
    dtype: ir.DataType,
    blocks: QueryBlocks,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    before: PrefixHeads | None,
) -> ir.Value:
    """Return the context of attention: [b, heads, s, head_dim], or stacked as by `stack_queries`.

    q is [b, heads, s, head_dim], k and v are [b, kv_heads, s, head_dim]; `blocks` is from `lay_out_blocks`. Queries
    also read the keys and values `before`, if the group has a prefix.
    """
    # a Reshape of a branch's outer input or of its output copies, so it is outside of the branch
    stacked = stack_queries(g, config, q)

    def attend(b: GraphBuilder, queries: ir.Value, keys: ir.Value, values: ir.Value, mask: ir.Value) -> ir.Value:
        return b.op("MatMul", attention_weights(b, config, dtype, queries, keys, mask), values, name="context")

    def attend_blocks(b: GraphBuilder, k: ir.Value, v: ir.Value) -> ir.Value:
        heads = b.op("Reshape", stacked, b.constant([0, config.heads, -1, config.head_dim]))

        def attend_block(b: GraphBuilder, index: ir.Value) -> ir.Value:
            with b.scope("block"):
                zero, axis = b.constant([0]), b.constant([2])
                number = b.op("Reshape", index, b.constant([1]))
                start = b.op("Mul", number, b.constant([BLOCK_QUERIES]), name="start")
                following = b.op("Add", number, b.constant([1]))
                end, length = b.op("Mul", following, b.constant([BLOCK_QUERIES])), b.op("Shape", heads, start=2, end=3)
                end = b.op("Where", b.op("Equal", following, blocks.count), length, end, name="end")
                queries = stack_queries(b, config, b.op("Slice", heads, start, end, axis, name="queries"))
                keys, values, mask = k, v, blocks.mask
                if blocks.causal:
                    first_key, end_key = (b.op("Add", blocks.first_key, query) for query in (start, end))
                    keys, values = (
                        b.op("Slice", grid, zero, end_key, axis, name=name)
                        for grid, name in ((k, "keys"), (v, "values"))
                    )
                    mask = _causal_mask(b, first_key, end_key)
                context = attend(b, queries, keys, values, mask)
                return b.op("Reshape", context, b.constant([0, config.heads, -1, config.head_dim]))

        return concat_loop(b, "blocks", blocks.count, dtype, attend_block, axis=2)

    def attend_single(b: GraphBuilder, k: ir.Value, v: ir.Value) -> ir.Value:
        return attend(b, stacked, k, v, blocks.mask)

    if before is None:
        return if_else(g, "mix", blocks.is_single, lambda b: attend_single(b, k, v), lambda b: attend_blocks(b, k, v))
    prefix, tables = before.prefix, (before.keys, before.values)

    def with_prefix(b: GraphBuilder, body: Callable[[GraphBuilder, ir.Value, ir.Value], ir.Value]) -> ir.Value:
        keys, values = (prefix.put_before(b, table, own) for table, own in zip(tables, (k, v), strict=True))
        return body(b, keys, values)

    def attend_any_blocks(b: GraphBuilder) -> ir.Value:
        return if_else(
            b,
            "prefix",
            prefix.is_used,
            lambda b: with_prefix(b, attend_blocks),
            lambda b: attend_blocks(b, k, v),
        )

    # an If takes as long as several operators: short texts without a prefix have one, and those with a prefix two
    return if_else(
        g,
        "mix",
        blocks.is_plain,
        lambda b: attend_single(b, k, v),
        lambda b: if_else(b, "single", blocks.is_single, lambda b: with_prefix(b, attend_single), attend_any_blocks),
    )
