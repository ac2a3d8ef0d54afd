"""Queries, keys and values of packed tokens, as inputs of the CUDA provider's attention operators."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..architectures import LayerTensors
from ..formats.operands import ScaledRows, apply_scale
from ..onnx_builder import GraphBuilder
from .decoder import DecoderParts, add_biases, project


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedHeads:
    """Queries [T, heads·head_dim], keys and values [T, kv_heads·head_dim]."""

    q: ir.Value
    k: ir.Value
    v: ir.Value


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadGains:
    """Gains [head_dim] of the norms on queries and keys."""

    q: ir.Value
    k: ir.Value


def project_heads(g: GraphBuilder, parts: DecoderParts, normed: ir.Value, layer: LayerTensors) -> PackedHeads:
    """Return q, k and v of the normed stream [T, hidden], before any norm on heads."""
    config = parts.config
    operand = parts.format.prepare(g, ScaledRows(normed), config.hidden, list("qkv"))
    q, k, v = (
        add_biases(g, parts, part, apply_scale(g, project(g, parts, part, operand, [tensor])), (bias,))
        for part, tensor, bias in (
            ("q", layer.q, layer.q_bias),
            ("k", layer.k, layer.k_bias),
            ("v", layer.v, layer.v_bias),
        )
    )
    return PackedHeads(q=q, k=k, v=v)


def norm_heads(g: GraphBuilder, parts: DecoderParts, heads: PackedHeads, layer: LayerTensors) -> PackedHeads:
    """Apply the norms on queries and keys, if the architecture has them."""
    if not parts.config.architecture.head_norms:
        return heads
    gains = load_gains(g, parts, layer)
    return PackedHeads(
        q=_norm(g, parts, heads.q, gains.q, parts.config.query_width, "q_norm"),
        k=_norm(g, parts, heads.k, gains.k, parts.config.kv_width, "k_norm"),
        v=heads.v,
    )


def load_gains(g: GraphBuilder, parts: DecoderParts, layer: LayerTensors) -> HeadGains:
    """Load the gains of a layer's norms on heads; raise ValueError if the architecture has none."""
    if layer.q_norm is None or layer.k_norm is None:
        raise ValueError("the architecture has no norms on heads")
    return HeadGains(
        q=parts.format.load_float(g, "q_norm.gain", [parts.weights[layer.q_norm]], transpose=False),
        k=parts.format.load_float(g, "k_norm.gain", [parts.weights[layer.k_norm]], transpose=False),
    )


def project_output(g: GraphBuilder, parts: DecoderParts, context: ir.Value, layer: LayerTensors) -> ir.Value:
    """Return [·, hidden] from the context [·, heads·head_dim]."""
    operand = parts.format.prepare(g, ScaledRows(context), parts.config.query_width, ["output"])
    return apply_scale(g, project(g, parts, "output", operand, [layer.output]))


def _norm(g: GraphBuilder, parts: DecoderParts, heads: ir.Value, gain: ir.Value, width: int, name: str) -> ir.Value:
    """Apply RMSNorm over head_dim to each head of [T, width]."""
    head_dim, eps = parts.config.head_dim, parts.config.norm_eps
    split = g.op("Reshape", heads, g.constant([-1, width // head_dim, head_dim]))
    normed = g.op("SimplifiedLayerNormalization", split, gain, name=name, axis=-1, epsilon=eps, stash_type=1)
    return g.op("Reshape", normed, g.constant([-1, width]))
