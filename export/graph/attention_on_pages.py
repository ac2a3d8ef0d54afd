"""Causal attention for GPUs over packed tokens and a paged KV cache, without any padding.

    q, k, v [T, ·] ─ norm ─ rope ─ PagedAttention (flash) ─→ [T, heads·head_dim]

From ONNX Runtime 1.29 on, the operator applies norm and rope itself. The rope of earlier releases launches
rows × tokens thread blocks, so for those the graph computes it separately.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from ..architectures import LayerTensors
from ..onnx_builder import MICROSOFT, Attribute, GraphBuilder
from .decoder import DecoderParts
from .packed_heads import load_gains, project_heads, project_joint_heads, project_output
from .pages import Pages
from .pooling import pool_last_token
from .tokens import PackedTokens


def attend(g: GraphBuilder, parts: DecoderParts, pages: Pages, normed: ir.Value, layer: LayerTensors) -> ir.Value:
    """Return every token's attention output [T, hidden] from the normed stream [T, hidden]."""
    return project_output(g, parts, _attend_tokens(g, parts, pages, normed, layer), layer)


def attend_last(
    g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, pages: Pages, normed: ir.Value, layer: LayerTensors
) -> ir.Value:
    """Return the attention output [G, hidden] of each row's last token. The operator itself computes all tokens."""
    context = _attend_tokens(g, parts, pages, normed, layer)
    return project_output(g, parts, pool_last_token(g, packed, context, "context"), layer)


def _attend_tokens(
    g: GraphBuilder, parts: DecoderParts, pages: Pages, normed: ir.Value, layer: LayerTensors
) -> ir.Value:
    """Return the context [T, heads·head_dim]."""
    config = parts.config
    attributes: dict[str, Attribute] = {
        "num_heads": config.heads,
        "kv_num_heads": config.kv_heads,
        "scale": 1.0 / math.sqrt(config.head_dim),
    }
    shared = (pages.key_cache, pages.value_cache, pages.cu_seqlens, pages.past_seqlens, pages.block_table)
    inputs: list[ir.Value | None]
    if pages.max_seqlens is None:
        heads = project_heads(g, parts, normed, layer)
        q = _rotate(g, pages, heads.q, config.query_width, "q_rope")
        k = _rotate(g, pages, heads.k, config.kv_width, "k_rope")
        inputs = [q, k, heads.v, *shared]
    else:
        gains = load_gains(g, parts, layer)
        joint = project_joint_heads(g, parts, normed, layer)
        inputs = [joint, None, None, *shared, pages.cos, pages.sin]
        inputs += [None, None, gains.q, gains.k, None, None, pages.max_seqlens]
        attributes |= {"do_rotary": 1, "qk_norm_epsilon": config.norm_eps}
    # the caches are updated in place; their optional outputs are not declared
    return g.op("PagedAttention", *inputs, name="attention", domain=MICROSOFT, **attributes)


def _rotate(g: GraphBuilder, pages: Pages, heads: ir.Value, width: int, name: str) -> ir.Value:
    """Apply rope to [T, width] as if it were one text, with tables that are gathered for each token."""
    text = g.op("Unsqueeze", heads, g.constant([0]))
    rotated = g.op("RotaryEmbedding", text, g.constant([0]), pages.cos, pages.sin, name=name, domain=MICROSOFT)
    return g.op("Reshape", rotated, g.constant([-1, width]))
