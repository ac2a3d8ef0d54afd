"""Queries, keys and values of packed tokens, as the attention operators of the CUDA provider take them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from .builder import GraphBuilder
from .decoder import DecoderParts
from .products import ScaledRows, load_weight, multiply_out, prepare_operand, project


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedHeads:
    """Normed queries and keys, and values: [T, heads·head_dim], [T, kv_heads·head_dim] twice."""

    q: ir.Value
    k: ir.Value
    v: ir.Value


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadGains:
    """Gains [head_dim] of the norms on queries and keys."""

    q: ir.Value
    k: ir.Value


def project_heads(g: GraphBuilder, parts: DecoderParts, normed: ir.Value, layer: str) -> PackedHeads:
    """Heads of the normed stream [T, hidden], q and k behind their norm."""
    config, gains = parts.config, load_gains(g, parts, layer)
    if parts.joint_products:
        widths = g.constant([config.query_width, config.kv_width, config.kv_width])
        q, k, v = g.ops("Split", project_joint_heads(g, parts, normed, layer), widths, axis=-1, name="heads", outputs=3)
    else:
        entered = prepare_operand(g, parts.form, ScaledRows(normed), config.hidden, list("qkv"))
        q, k, v = (
            multiply_out(g, project(g, parts.form, part, entered, [f"{layer}.self_attn.{part}_proj.weight"]))
            for part in "qkv"
        )
    return PackedHeads(
        q=_norm_heads(g, parts, q, gains.q, config.query_width, "q_norm"),
        k=_norm_heads(g, parts, k, gains.k, config.kv_width, "k_norm"),
        v=v,
    )


def project_joint_heads(g: GraphBuilder, parts: DecoderParts, normed: ir.Value, layer: str) -> ir.Value:
    """Queries, keys and values side by side, not normed: [T, (heads + 2·kv_heads)·head_dim]."""
    entered = prepare_operand(g, parts.form, ScaledRows(normed), parts.config.hidden, ["qkv"])
    tensors = [f"{layer}.self_attn.{part}_proj.weight" for part in "qkv"]
    return multiply_out(g, project(g, parts.form, "qkv", entered, tensors))


def load_gains(g: GraphBuilder, parts: DecoderParts, layer: str) -> HeadGains:
    """The gains of a layer's head norms."""
    return HeadGains(
        q=load_weight(g, parts.form, "q_norm.gain", [f"{layer}.self_attn.q_norm.weight"], transpose=False),
        k=load_weight(g, parts.form, "k_norm.gain", [f"{layer}.self_attn.k_norm.weight"], transpose=False),
    )


def project_output(g: GraphBuilder, parts: DecoderParts, context: ir.Value, layer: str) -> ir.Value:
    """[·, hidden] from the heads' answers [·, heads·head_dim]."""
    operand = prepare_operand(g, parts.form, ScaledRows(context), parts.config.query_width, ["output"])
    return multiply_out(g, project(g, parts.form, "output", operand, [f"{layer}.self_attn.o_proj.weight"]))


def _norm_heads(
    g: GraphBuilder, parts: DecoderParts, heads: ir.Value, gain: ir.Value, width: int, name: str
) -> ir.Value:
    """RMSNorm over head_dim of each head of [T, width]."""
    head_dim, eps = parts.config.head_dim, parts.config.norm_eps
    split = g.op("Reshape", heads, g.constant([-1, width // head_dim, head_dim]))
    normed = g.op("SimplifiedLayerNormalization", split, gain, name=name, axis=-1, epsilon=eps, stash_type=1)
    return g.op("Reshape", normed, g.constant([-1, width]))
