"""Causal attention for GPUs over packed tokens and a paged cache: no padding anywhere.

    q, k, v [T, ·] ─ norm ─ rope ─ PagedAttention (flash) ─→ [T, heads·head_dim]

From ONNX Runtime 1.29 the operator norms and rotates by itself. Before, its own rope starts a thread block for every
token of every row as if each row had all of the batch's tokens; rope is computed outside of it then.
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
    """Every token's attention output [T, hidden] from the normed stream [T, hidden]."""
    return project_output(g, parts, _attend_tokens(g, parts, pages, normed, layer), layer)


def attend_last(
    g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, pages: Pages, normed: ir.Value, layer: LayerTensors
) -> ir.Value:
    """Each row's last token's attention output [G, hidden]; the operator has no way to ask for that alone."""
    context = _attend_tokens(g, parts, pages, normed, layer)
    return project_output(g, parts, pool_last_token(g, packed, context, "context"), layer)


def _attend_tokens(
    g: GraphBuilder, parts: DecoderParts, pages: Pages, normed: ir.Value, layer: LayerTensors
) -> ir.Value:
    """The heads' answers [T, heads·head_dim]."""
    config = parts.config
    attributes: dict[str, Attribute] = {
        "num_heads": config.heads,
        "kv_num_heads": config.kv_heads,
        "scale": 1.0 / math.sqrt(config.head_dim),
    }
    shared = (pages.keys, pages.values, pages.cu_seqlens, pages.past, pages.table)
    inputs: list[ir.Value | None]
    if pages.bounds is None:
        heads = project_heads(g, parts, normed, layer)
        q = _rotate(g, pages, heads.q, config.query_width, "q_rope")
        k = _rotate(g, pages, heads.k, config.kv_width, "k_rope")
        inputs = [q, k, heads.v, *shared]
    else:
        gains = load_gains(g, parts, layer)
        joint = project_joint_heads(g, parts, normed, layer)
        inputs = [joint, None, None, *shared, pages.cos, pages.sin]
        inputs += [None, None, gains.q, gains.k, None, None, pages.bounds]
        attributes |= {"do_rotary": 1, "qk_norm_epsilon": config.norm_eps}
    # the caches are written in place, so they are no outputs
    return g.op("PagedAttention", *inputs, name="attention", domain=MICROSOFT, **attributes)


def _rotate(g: GraphBuilder, pages: Pages, heads: ir.Value, width: int, name: str) -> ir.Value:
    """Rope of [T, width] by tables that have a row for each token, as one text that starts at 0."""
    text = g.op("Unsqueeze", heads, g.constant([0]))
    rotated = g.op("RotaryEmbedding", text, g.constant([0]), pages.cos, pages.sin, name=name, domain=MICROSOFT)
    return g.op("Reshape", rotated, g.constant([-1, width]))
