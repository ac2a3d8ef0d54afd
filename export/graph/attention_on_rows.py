"""Causal attention for GPUs over right-padded rows.

    q, k, v [T, ·] ─ move ─→ [G, W, ·] ─ GroupQueryAttention (rope, flash) ─→ [G, W, ·] ─ move ─→ [T, ·]

Unless the batch is dense (see `row_grid`), only attention computes padding, and matrix products are packed. Causal
attention never attends to what follows a token, so right padding needs no mask.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from ..architectures import LayerTensors
from ..onnx_builder import MICROSOFT, Attribute, GraphBuilder
from .cuda_profile import CudaProfile
from .decoder import DecoderParts
from .packed_heads import HeadGains, load_gains, norm_heads, project_heads, project_output
from .row_grid import RowGrid


def attend(g: GraphBuilder, parts: DecoderParts, grid: RowGrid, normed: ir.Value, layer: LayerTensors) -> ir.Value:
    """Return every token's attention output [T, hidden], or of a dense batch [G, W, hidden], from the normed stream."""
    context = _to_tokens(g, grid, _attend_rows(g, parts, grid, normed, layer), parts.config.query_width)
    return project_output(g, parts, context, layer)


def attend_last(g: GraphBuilder, parts: DecoderParts, grid: RowGrid, normed: ir.Value, layer: LayerTensors) -> ir.Value:
    """Return the attention output [G, hidden] of each row's last token. The operator itself computes all tokens."""
    cells = g.op("Flatten", _attend_rows(g, parts, grid, normed, layer), axis=-1)
    return project_output(g, parts, g.op("Gather", cells, grid.last_cells, axis=0, name="context"), layer)


def _attend_rows(
    g: GraphBuilder, parts: DecoderParts, grid: RowGrid, normed: ir.Value, layer: LayerTensors
) -> ir.Value:
    """Return the context of every cell of the grid: [G, W, heads·head_dim]."""
    profile = parts.cuda or CudaProfile()
    decomposed = profile.decomposes_attention(parts.format.activations)
    heads, gains = project_heads(g, parts, normed, layer), None
    if parts.operator_norms_heads and not decomposed:
        gains = load_gains(g, parts, layer)
    else:
        heads = norm_heads(g, parts, heads, layer, [-1] if grid.moves else [0, 0])
    q, k, v = (_to_rows(g, grid, values, name) for values, name in ((heads.q, "q"), (heads.k, "k"), (heads.v, "v")))
    return _multi_head(g, parts, q, k, v) if decomposed else _group_query(g, parts, grid, q, k, v, gains)


def _to_rows(g: GraphBuilder, grid: RowGrid, values: ir.Value, name: str) -> ir.Value:
    """Return the rows [G, W, ·] of the tokens' values [T, ·], or of a dense batch [G, W, ·]."""
    moves, name = grid.moves, f"{name}_rows"
    if moves is None:
        return values
    if moves.offsets is None:
        return g.op("Gather", values, moves.token_of_cell, axis=0, name=name)
    return g.op("RestorePadding", values, moves.offsets, name=name, domain=MICROSOFT)


def _to_tokens(g: GraphBuilder, grid: RowGrid, rows: ir.Value, width: int) -> ir.Value:
    """Return the tokens' values [T, width] from those of the rows [G, W, width]; of a dense batch, the rows."""
    moves = grid.moves
    if moves is None:
        return rows
    cells = g.op("Reshape", rows, g.constant([-1, width]), name="cells")
    if moves.inverse is None:
        return g.op("Gather", cells, moves.cell_of_token, axis=0, name="context")
    # moves the cells of padding behind those of tokens
    ordered = g.op("RestorePadding", cells, moves.inverse, name="ordered", domain=MICROSOFT)
    ordered = g.op("Reshape", ordered, g.constant([-1, width]))
    return g.op("Slice", ordered, g.constant([0]), moves.token_count, g.constant([0]), name="context")


def _group_query(
    g: GraphBuilder,
    parts: DecoderParts,
    grid: RowGrid,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    gains: HeadGains | None,
) -> ir.Value:
    """Return the context [G, W, heads·head_dim] by GroupQueryAttention, which norms q and k if `gains` are given."""
    config = parts.config
    inputs = [q, k, v, None, None, grid.seqlens_k, grid.width, parts.cos, parts.sin]
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
