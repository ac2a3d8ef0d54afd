"""The paged KV cache of one batch, and the page of each token; computed once, used by every layer.

A row occupies consecutive whole pages. The cache holds only the current layer's keys and values of the current batch,
so all layers use the same one in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .decoder import DecoderParts
from .row_grid import RowColumns
from .tokens import PackedTokens

PAGE = 256
"""Tokens of a page. ONNX Runtime up to 1.28 supports only multiples of 256."""
MAX_ROWS = 256
"""ONNX Runtime up to 1.28 sums the lengths of more rows incorrectly."""
INT32 = ir.DataType.INT32


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """Inputs of PagedAttention for a batch of T tokens in G rows."""

    key_cache: ir.Value
    """[pages, PAGE, kv_heads, head_dim]"""
    value_cache: ir.Value
    """[pages, PAGE, kv_heads, head_dim]"""
    cu_seqlens: ir.Value
    """INT32 [G + 1]: cumulative sequence lengths, starting with 0."""
    past_seqlens: ir.Value
    """INT32 [G]: zeros, because no token is cached before."""
    block_table: ir.Value
    """INT32 [G, ⌈max_tokens / PAGE⌉]: the pages of each row."""
    cos: ir.Value
    """Rope table, gathered for the tokens: [T, head_dim / 2]."""
    sin: ir.Value
    max_seqlens: ir.Value | None
    """INT32 [2] in host memory: longest query and longest key sequence; None if the operator has no such input."""


def lay_out_pages(
    g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, rows: RowColumns, max_tokens: int
) -> Pages:
    """Compute the pages of a batch whose rows have at most `max_tokens` tokens."""
    cu_seqlens = g.op("Concat", g.constant([0]), packed.row_ends, axis=0)
    needed = g.op("Div", g.op("Add", packed.lengths, g.constant([PAGE - 1])), g.constant([PAGE]), name="pages_of_row")
    first = g.op("Sub", g.op("CumSum", needed, g.constant(0)), needed, name="first_page")
    pages = _page_count(g, packed)
    columns = g.constant([list(range(-(-max_tokens // PAGE)))])
    table = g.op("Add", g.op("Unsqueeze", first, g.constant([1])), columns)
    # entries after a row's last page are never read, but must be valid
    table = g.op("Min", table, g.op("Sub", pages, g.constant([1])), name="table")
    positions = _positions(g, packed)
    return Pages(
        key_cache=_cache(g, parts, pages, "keys", 0.0),
        # ONNX Runtime would merge two identical nodes, and values would overwrite keys
        value_cache=_cache(g, parts, pages, "values", 1.0),
        cu_seqlens=g.op("Cast", cu_seqlens, to=INT32, name="token_ends"),
        past_seqlens=g.op("Cast", g.op("Mul", packed.row_starts, g.constant([0])), to=INT32, name="past"),
        block_table=g.op("Cast", table, to=INT32),
        cos=g.op("Gather", parts.cos, positions, axis=0, name="cos"),
        sin=g.op("Gather", parts.sin, positions, axis=0, name="sin"),
        max_seqlens=_max_seqlens(g, rows) if parts.cuda is not None and parts.cuda.bounds_pages else None,
    )


def _page_count(g: GraphBuilder, packed: PackedTokens) -> ir.Value:
    """Return INT64 [1]: an upper bound of the pages of T tokens in G rows, from shapes only."""
    full = g.op("Div", g.op("Shape", packed.ids), g.constant([PAGE]))
    return g.op("Add", full, g.op("Shape", packed.row_starts), name="pages")


def _cache(g: GraphBuilder, parts: DecoderParts, pages: ir.Value, name: str, filler: float) -> ir.Value:
    config, dtype = parts.config, parts.format.activations
    shape = g.op("Concat", pages, g.constant([PAGE, config.kv_heads, config.head_dim]), axis=0)
    value = ir.tensor(np.asarray([filler], dtype.numpy()))
    return g.op("ConstantOfShape", shape, name=name, value=value)


def _positions(g: GraphBuilder, packed: PackedTokens) -> ir.Value:
    """Return INT64 [T]: each token's position in its row.

    It is the cumulative sum of ones, less the length of the previous row at each row's start.
    """
    previous = g.op("Concat", g.constant([1]), g.op("Slice", packed.lengths, g.constant([0]), g.constant([-1])), axis=0)
    ones = g.op("Add", g.op("Mul", packed.ids, g.constant(0)), g.constant(1))
    steps = g.op("ScatterElements", ones, packed.row_starts, g.op("Sub", g.constant([1]), previous), axis=0)
    return g.op("CumSum", steps, g.constant(0), name="positions")


def _max_seqlens(g: GraphBuilder, rows: RowColumns) -> ir.Value:
    width = rows.width(g)
    return g.op("Cast", g.op("Concat", width, width, axis=0), to=INT32, name="bounds")
