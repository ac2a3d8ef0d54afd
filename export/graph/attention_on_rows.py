"""Causal attention for GPUs over right-padded rows. Only attention computes padding; matrix products are packed.

    q, k, v [T, ·] ─ gather ─→ [G, W, ·] ─ GroupQueryAttention (rope, flash) ─→ [G, W, ·] ─ gather ─→ [T, ·]

Causal attention never attends to what follows a token, so right padding needs no mask.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from ..architectures import LayerTensors
from ..onnx_builder import MICROSOFT, Attribute, GraphBuilder
from .cuda_profile import CudaProfile
from .decoder import DecoderParts
from .packed_heads import HeadGains, load_gains, project_heads, project_joint_heads, project_output
from .row_grid import RowGrid


def attend(g: GraphBuilder, parts: DecoderParts, grid: RowGrid, normed: ir.Value, layer: LayerTensors) -> ir.Value:
    """Return every token's attention output [T, hidden] from the normed stream [T, hidden]."""
    context = _attend_rows(g, parts, grid, normed, layer)
    return project_output(g, parts, g.op("Gather", context, grid.cell_of_token, axis=0, name="context"), layer)


def attend_last(g: GraphBuilder, parts: DecoderParts, grid: RowGrid, normed: ir.Value, layer: LayerTensors) -> ir.Value:
    """Return the attention output [G, hidden] of each row's last token. The operator itself computes all tokens."""
    context = _attend_rows(g, parts, grid, normed, layer)
    return project_output(g, parts, g.op("Gather", context, grid.last_cells, axis=0, name="context"), layer)


def _attend_rows(
    g: GraphBuilder, parts: DecoderParts, grid: RowGrid, normed: ir.Value, layer: LayerTensors
) -> ir.Value:
    """Return the context of every cell of the grid: [G·W, heads·head_dim]."""
    profile = parts.cuda or CudaProfile()
    decomposed = profile.decomposes_attention(parts.format.activations)
    if parts.operator_norms_heads and not decomposed:
        joint = _to_rows(g, grid, project_joint_heads(g, parts, normed, layer), "heads")
        rows = _group_query(g, parts, grid, [joint], load_gains(g, parts, layer))
    else:
        heads = project_heads(g, parts, normed, layer)
        q, k, v = (_to_rows(g, grid, values, name) for name, values in (("q", heads.q), ("k", heads.k), ("v", heads.v)))
        rows = _multi_head(g, parts, q, k, v) if decomposed else _group_query(g, parts, grid, [q, k, v], None)
    return g.op("Reshape", rows, g.constant([-1, parts.config.query_width]), name="cells")


def _to_rows(g: GraphBuilder, grid: RowGrid, values: ir.Value, name: str) -> ir.Value:
    """Pad [T, ·] to [G, W, ·]."""
    return g.op("Gather", values, grid.token_of_cell, axis=0, name=f"{name}_rows")


def _group_query(
    g: GraphBuilder, parts: DecoderParts, grid: RowGrid, heads: list[ir.Value], gains: HeadGains | None
) -> ir.Value:
    """Return the context [G, W, heads·head_dim] by GroupQueryAttention.

    `heads` is [q, k, v], or one tensor of all three concatenated, which `gains` then norm.
    """
    config = parts.config
    inputs = [*heads, *[None] * (3 - len(heads)), None, None, grid.seqlens_k, grid.width, parts.cos, parts.sin]
    attributes: dict[str, Attribute] = {
        "num_heads": config.heads,
        "kv_num_heads": config.kv_heads,
        "scale": 1.0 / math.sqrt(config.head_dim),
        "do_rotary": 1,
    }
    if gains is not None:
        inputs += [None] * 5 + [gains.q, gains.k]
        attributes["qk_norm_epsilon"] = config.norm_eps
    # the unused outputs of the caches must be declared up to ONNX Runtime 1.26
    return g.ops("GroupQueryAttention", *inputs, name="attention", domain=MICROSOFT, outputs=3, **attributes)[0]


def _multi_head(g: GraphBuilder, parts: DecoderParts, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
    """Return the context [G, W, heads·head_dim] by MultiHeadAttention, with rope and repeat_kv as separate nodes."""
    config = parts.config
    first = g.constant([0])
    q, k = (
        g.op("RotaryEmbedding", heads, first, parts.cos, parts.sin, name=name, domain=MICROSOFT)
        for heads, name in ((q, "q_rope"), (k, "k_rope"))
    )
    return g.op(
        "MultiHeadAttention",
        q,
        _repeat_heads(g, parts, k),
        _repeat_heads(g, parts, v),
        name="attention",
        domain=MICROSOFT,
        num_heads=config.heads,
        scale=1.0 / math.sqrt(config.head_dim),
        unidirectional=1,
    )


def _repeat_heads(g: GraphBuilder, parts: DecoderParts, rows: ir.Value) -> ir.Value:
    """Repeat key or value heads [G, W, kv_heads·head_dim] for each query head: [G, W, heads·head_dim]."""
    config = parts.config
    if config.heads == config.kv_heads:
        return rows
    owners = [head * config.kv_heads // config.heads for head in range(config.heads)]
    split = g.op("Reshape", rows, g.constant([0, 0, config.kv_heads, config.head_dim]))
    repeated = g.op("Gather", split, g.constant(owners), axis=2)
    return g.op("Reshape", repeated, g.constant([0, 0, config.query_width]))
