"""Attention for CPUs over one group of texts of similar length. Only attention computes padded cells.

    [t, q·k·v] ─ gather head rows ─→ q [b, heads, s, head_dim] ─ norm ─ rope ─┐
               ├ gather head rows ─→ k [b, kv_heads, s, head_dim] ─ norm ─ rope ─ scores ─ softmax ─┐
               └ gather head rows ─→ v [b, kv_heads, s, head_dim] ────────────────────────────── context
                                         [t, heads·head_dim] ←─────────── gather head rows ─────────┘

q, k and v come from one product, and one gather per part pads rows and splits heads at the same time.
`last_attention` has that of the last layer.

Shapes: t tokens and b rows of a group, s tokens of its longest row.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..architectures import LayerTensors
from ..formats.operands import Operand, apply_scale
from ..onnx_builder import GraphBuilder
from .blocked_attention import PrefixHeads, attend_in_blocks
from .decoder import DecoderParts, add_biases, project
from .head_layout import HeadLayout
from .head_operators import norm_heads, project_output, rotate_heads, split_heads
from .state_tables import key_table, value_table


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupHeads:
    """Heads of a group's rows, normed and rotated."""

    q: ir.Value
    """[b, heads, s, head_dim]"""
    k: ir.Value
    """[b, kv_heads, s, head_dim]"""
    v: ir.Value
    """[b, kv_heads, s, head_dim]"""


def attend(g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, operand: Operand, layer: LayerTensors) -> ir.Value:
    """Return every token's attention output [t, hidden] from the normed stream [t, hidden]."""
    return mix_heads(g, parts, layout, project_heads(g, parts, layout, operand, layer), layer)


def project_heads(
    g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, operand: Operand, layer: LayerTensors
) -> GroupHeads:
    """Return the heads of every token from the normed stream [t, hidden]."""
    joint = apply_scale(g, project(g, parts, "qkv", operand, layer.qkv))
    joint = add_biases(g, parts, "qkv", joint, (layer.q_bias, layer.k_bias, layer.v_bias))
    joint = split_heads(g, parts, joint)
    q, k, v = (
        g.op("Gather", joint, rows, axis=0, name=f"{part}_grid")
        for part, rows in (("q", layout.query_rows), ("k", layout.key_rows), ("v", layout.value_rows))
    )
    q, k = (
        rotate_heads(g, parts, norm_heads(g, parts, heads, gain, part), layout.blocks.first_key, part)
        for part, heads, gain in (("q", q, layer.q_norm), ("k", k, layer.k_norm))
    )
    return GroupHeads(q=q, k=k, v=v)


def mix_heads(
    g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, heads: GroupHeads, layer: LayerTensors
) -> ir.Value:
    """Return every token's attention output [t, hidden]."""
    config, dtype, before = parts.config, parts.format.activations, None
    if layout.group.prefix is not None:
        keys, values = key_table(g, parts), value_table(g, parts)
        before = PrefixHeads(prefix=layout.group.prefix, keys=keys, values=values)
    context = attend_in_blocks(g, config, dtype, layout.blocks, heads.q, heads.k, heads.v, before)
    context = g.op("Gather", split_heads(g, parts, context), layout.context_rows, axis=0, name="context_of_tokens")
    return project_output(g, parts, g.op("Reshape", context, g.constant([-1, config.query_width])), layer)
