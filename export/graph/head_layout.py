"""Row indices between the packed tokens of a group and the padded heads of its rows.

Shapes: t tokens and b rows of a group, s tokens of its longest row, p tokens of its prefix.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .blocked_attention import QueryBlocks, lay_out_blocks, mask_where
from .decoder import DecoderParts
from .groups import TextGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLayout:
    """Row indices between packed tokens and the padded heads of a group, shared by all layers."""

    group: TextGroup
    query_rows: ir.Value
    """INT64 [b, heads, s]: indices of query heads in [t·(heads + 2·kv_heads), head_dim], the heads of each token's
    q, k and v concatenated."""
    key_rows: ir.Value
    """INT64 [b, kv_heads, s]: indices of key heads in the same tensor."""
    value_rows: ir.Value
    """INT64 [b, kv_heads, s]: indices of value heads in the same tensor."""
    last_key_rows: ir.Value
    """INT64 [b, kv_heads, s]: indices of key heads in [t·kv_heads, head_dim], for the last layer."""
    context_rows: ir.Value
    """INT64 [t, heads]: indices of each token's heads in [b·heads·s, head_dim]."""
    all_tokens: ir.Value
    """INT64 [1]: p + s"""
    padding_mask: ir.Value
    """FP32 [b, 1, 1, p + s]: added to the scores of a row's last token; excludes padding."""
    blocks: QueryBlocks


def lay_out_heads(g: GraphBuilder, parts: DecoderParts, group: TextGroup) -> HeadLayout:
    """Compute the layout of `group`."""
    config = parts.config
    keys, values, stride = (config.heads + part * config.kv_heads for part in range(3))
    cells, max_length = g.op("Unsqueeze", group.token_of_cell, g.constant([1])), group.max_length
    step = g.op("Mod", group.cell_of_token, max_length)
    of_row = g.op("Mul", g.op("Sub", group.cell_of_token, step), g.constant([config.heads]))
    of_head = g.op("Mul", _heads(g, range(config.heads), [1, -1]), max_length)
    first = g.op("Unsqueeze", g.op("Add", of_row, step), g.constant([1]))
    all_tokens, lengths = max_length, group.lengths
    if group.prefix is not None:
        all_tokens, lengths = (g.op("Add", group.prefix.length, own) for own in (max_length, group.lengths))
    steps = g.op("Range", g.constant(0), g.op("Squeeze", all_tokens), g.constant(1))
    lengths = g.op("Reshape", lengths, g.constant([-1, 1, 1, 1]))
    query_rows = _head_rows(g, cells, stride, range(keys), "query_rows")
    key_rows = _head_rows(g, cells, stride, range(keys, values), "key_rows")
    value_rows = _head_rows(g, cells, stride, range(values, stride), "value_rows")
    last_key_rows = _head_rows(g, cells, config.kv_heads, range(config.kv_heads), "last_key_rows")
    context_rows = g.op("Add", first, of_head, name="context_rows")
    padding_mask = mask_where(g, g.op("GreaterOrEqual", steps, lengths), "behind")
    return HeadLayout(
        group=group,
        query_rows=query_rows,
        key_rows=key_rows,
        value_rows=value_rows,
        last_key_rows=last_key_rows,
        context_rows=context_rows,
        all_tokens=all_tokens,
        padding_mask=padding_mask,
        blocks=lay_out_blocks(g, max_length, group.prefix, None if config.causal else padding_mask),
    )


def _heads(g: GraphBuilder, heads: range, shape: list[int]) -> ir.Value:
    return g.op("Reshape", g.constant(list(heads)), g.constant(shape))


def _head_rows(g: GraphBuilder, cells: ir.Value, stride: int, heads: range, name: str) -> ir.Value:
    """Return INT64 [b, heads, s]: indices of `heads` for the tokens [b, 1, s], each of which has `stride` rows."""
    return g.op("Add", g.op("Mul", cells, g.constant([stride])), _heads(g, heads, [-1, 1]), name=name)
