"""A paged cache for one batch and where each token goes in it; computed once, used by every layer.

A row takes whole pages, one behind the other, and the cache holds nothing but this batch: every layer writes
its keys and values there and reads them back. So one cache serves all layers in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .decoder import DecoderParts
from .tokens import PackedTokens, longest_row

PAGE = 256
"""Tokens of a page; ONNX Runtime up to 1.28 takes multiples of this only."""
MAX_ROWS = 256
"""ONNX Runtime up to 1.28 sums the lengths of more rows wrongly."""
INT32 = ir.DataType.INT32


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """What PagedAttention wants to know of a batch of T tokens in G rows."""

    keys: ir.Value
    """[pages, PAGE, kv_heads, head_dim]"""
    values: ir.Value
    cu_seqlens: ir.Value
    """INT32 [G + 1]: 0, then one behind each row's last token."""
    past: ir.Value
    """INT32 [G]: zeros, nothing was computed before."""
    table: ir.Value
    """INT32 [G, pages of the longest row possible]: the pages of each row."""
    cos: ir.Value
    """Rope tables; with `bounds` [positions, head_dim / 2], else row by row for the packed tokens [T, ·]."""
    sin: ir.Value
    bounds: ir.Value | None
    """INT32 [2]: length of the longest row, twice, in host memory; None where the operator does not ask."""


def lay_out_pages(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, max_tokens: int) -> Pages:
    """The pages of a batch whose rows have at most `max_tokens` tokens."""
    ends = g.op("Concat", g.constant([0]), packed.ends, axis=0)
    needed = g.op("Div", g.op("Add", packed.lengths, g.constant([PAGE - 1])), g.constant([PAGE]), name="pages_of_row")
    first = g.op("Sub", g.op("CumSum", needed, g.constant(0)), needed, name="first_page")
    pages = _page_count(g, packed)
    columns = g.constant([list(range(-(-max_tokens // PAGE)))])
    table = g.op("Add", g.op("Unsqueeze", first, g.constant([1])), columns)
    # what lies behind a row's own pages is never read, but has to exist
    table = g.op("Min", table, g.op("Sub", pages, g.constant([1])), name="table")
    fused = parts.operator_norms_heads
    positions = None if fused else _positions(g, packed)
    return Pages(
        keys=_cache(g, parts, pages, "keys", 0.0),
        # two nodes that are equal in everything would be merged to one, and keys overwritten by values
        values=_cache(g, parts, pages, "values", 1.0),
        cu_seqlens=g.op("Cast", ends, to=INT32, name="token_ends"),
        past=g.op("Cast", g.op("Mul", packed.starts, g.constant([0])), to=INT32, name="past"),
        table=g.op("Cast", table, to=INT32),
        cos=parts.cos if positions is None else g.op("Gather", parts.cos, positions, axis=0, name="cos"),
        sin=parts.sin if positions is None else g.op("Gather", parts.sin, positions, axis=0, name="sin"),
        bounds=_bounds(g, packed) if fused else None,
    )


def _page_count(g: GraphBuilder, packed: PackedTokens) -> ir.Value:
    """INT64 [1]: as many pages as T tokens in G rows can take at most, from shapes alone."""
    full = g.op("Div", g.op("Shape", packed.ids), g.constant([PAGE]))
    return g.op("Add", full, g.op("Shape", packed.starts), name="pages")


def _cache(g: GraphBuilder, parts: DecoderParts, pages: ir.Value, name: str, filler: float) -> ir.Value:
    config, dtype = parts.config, parts.format.activations
    shape = g.op("Concat", pages, g.constant([PAGE, config.kv_heads, config.head_dim]), axis=0)
    value = ir.tensor(np.asarray([filler], dtype.numpy()))
    return g.op("ConstantOfShape", shape, name=name, value=value)


def _positions(g: GraphBuilder, packed: PackedTokens) -> ir.Value:
    """INT64 [T]: each token's position in its row.

    Steps of one are summed up; at a row's start the step takes the length of the row before back.
    """
    before = g.op("Concat", g.constant([1]), g.op("Slice", packed.lengths, g.constant([0]), g.constant([-1])), axis=0)
    ones = g.op("Add", g.op("Mul", packed.ids, g.constant(0)), g.constant(1))
    steps = g.op("ScatterElements", ones, packed.starts, g.op("Sub", g.constant([1]), before), axis=0)
    return g.op("CumSum", steps, g.constant(0), name="positions")


def _bounds(g: GraphBuilder, packed: PackedTokens) -> ir.Value:
    longest = g.op("Cast", longest_row(g, packed), to=INT32)
    return g.op("Concat", longest, longest, axis=0, name="bounds")
