"""Queries, keys and values of packed tokens, as inputs of the CUDA provider's attention operators."""

from __future__ import annotations

from collections.abc import Sequence
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


def norm_heads(
    g: GraphBuilder,
    parts: DecoderParts,
    heads: PackedHeads,
    layer: LayerTensors,
    dimensions: Sequence[int],
    joined: Sequence[int] = (),
) -> PackedHeads:
    """Apply the norms on queries and keys, if the architecture has them.

    Args:
        g: Builder.
        parts: Parts of the decoder.
        heads: What to norm.
        layer: Tensor names of the layer.
        dimensions: All dimensions of `heads` but the last, as Reshape takes them.
        joined: Those of the result, if it is to have others.
    """
    config, joined = parts.config, joined or dimensions
    if config.architecture.head_norms:
        gains = load_gains(g, parts, layer)
        q = _norm(g, parts, heads.q, gains.q, [*dimensions, config.heads], "q_norm")
        k = _norm(g, parts, heads.k, gains.k, [*dimensions, config.kv_heads], "k_norm")
    elif joined == dimensions:
        return heads
    else:
        q, k = heads.q, heads.k
    return PackedHeads(
        q=g.op("Reshape", q, g.constant([*joined, config.query_width])),
        k=g.op("Reshape", k, g.constant([*joined, config.kv_width])),
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


def _norm(
    g: GraphBuilder, parts: DecoderParts, values: ir.Value, gain: ir.Value, dimensions: Sequence[int], name: str
) -> ir.Value:
    """Apply RMSNorm over head_dim; `dimensions` are those of the result but the last, up to the number of heads."""
    split = g.op("Reshape", values, g.constant([*dimensions, parts.config.head_dim]))
    eps = parts.config.norm_eps
    return g.op("SimplifiedLayerNormalization", split, gain, name=name, axis=-1, epsilon=eps, stash_type=1)
