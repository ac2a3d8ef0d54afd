"""Operators on the heads of one layer of a CPU graph, in the scope of its attention."""

from __future__ import annotations

import onnx_ir as ir

from ..architectures import LayerTensors
from ..formats.operands import ScaledRows, apply_scale
from ..onnx_builder import MICROSOFT, GraphBuilder
from .decoder import DecoderParts, project


def split_heads(g: GraphBuilder, parts: DecoderParts, values: ir.Value) -> ir.Value:
    """Reshape [·, heads·head_dim] to [·, head_dim]."""
    return g.op("Reshape", values, g.constant([-1, parts.config.head_dim]))


def project_output(g: GraphBuilder, parts: DecoderParts, context: ir.Value, layer: LayerTensors) -> ir.Value:
    """Return [·, hidden] from the context [·, heads·head_dim]."""
    operand = parts.format.prepare(g, ScaledRows(context), parts.config.query_width, ["output"])
    return apply_scale(g, project(g, parts, "output", operand, [layer.output]))


def norm_heads(g: GraphBuilder, parts: DecoderParts, heads: ir.Value, gain: str | None, part: str) -> ir.Value:
    """Apply RMSNorm over head_dim to heads [..., head_dim], if the architecture has one."""
    if gain is None:
        return heads
    weight = parts.format.load_float(g, f"{part}_norm.gain", [parts.weights[gain]], transpose=False)
    eps = parts.config.norm_eps
    return g.op("SimplifiedLayerNormalization", heads, weight, name=f"{part}_norm", axis=-1, epsilon=eps, stash_type=1)


def rotate_heads(g: GraphBuilder, parts: DecoderParts, heads: ir.Value, position: ir.Value, part: str) -> ir.Value:
    """Apply rope to [b, heads, s, head_dim]; `position` is INT64 [1], that of the first token, or [b, s]."""
    return g.op("RotaryEmbedding", heads, position, parts.cos, parts.sin, name=f"{part}_rope", domain=MICROSOFT)
