"""A decoder layer, and what all layers read."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ..architectures import DecoderConfig, LayerTensors
from ..formats.operands import Operand
from ..onnx_builder import GraphBuilder
from ..sources.weights import Weights
from .attention_choice import Attention
from .decoder import DecoderParts, Stream, feed_forward, norm_to_operand
from .graph_options import GraphOptions
from .rope import RopeTables

IR_VERSION = 10


def decoder_parts(
    g: GraphBuilder, config: DecoderConfig, weights: Weights, rope: RopeTables, options: GraphOptions
) -> DecoderParts:
    """Return the inputs of every layer."""
    dtype = options.format.activations
    return DecoderParts(
        config=config,
        weights=weights,
        format=options.format,
        eps=options.rescale.eps(config.norm_eps),
        cos=g.table("rope.cos", rope.cos.astype(dtype.numpy())),
        sin=g.table("rope.sin", rope.sin.astype(dtype.numpy())),
        cuda=options.cuda,
        head=options.head,
    )


def add_layer(
    g: GraphBuilder,
    parts: DecoderParts,
    attend: Callable[[Operand, LayerTensors], ir.Value],
    stream: Stream,
    index: int,
) -> Stream:
    """Add layer `index`; `attend` returns the attention output of every token [T, hidden] from the normed stream."""
    layer = parts.layer(index)
    with g.scope(f"layers.{index}"):
        with g.scope("attention"):
            operand, stream = norm_to_operand(g, parts, stream, layer.attention_norm, ["qkv"])
            stream = Stream(stream.residual, attend(operand, layer))
        return _add_mlp(g, parts, stream, layer)


def add_pooled_layer(g: GraphBuilder, parts: DecoderParts, attention: Attention, stream: Stream) -> Stream:
    """Add the last layer, if only the last tokens are pooled: it computes nothing else after its attention."""
    index = parts.config.layers - 1
    layer = parts.layer(index)
    with g.scope(f"layers.{index}"):
        with g.scope("attention"):
            operand, stream = norm_to_last_operand(g, parts, stream, layer)
            attended = attention.attend_last(operand, layer)
        return _add_mlp(g, parts, Stream(attention.pool_last(stream.residual, "residual"), attended), layer)


def norm_to_last_operand(
    g: GraphBuilder, parts: DecoderParts, stream: Stream, layer: LayerTensors
) -> tuple[Operand, Stream]:
    """Return the normed stream as `add_pooled_layer` reads it, and the stream, as `norm_to_operand` does."""
    return norm_to_operand(g, parts, stream, layer.attention_norm, ["q", "k"], floats=True)


def _add_mlp(g: GraphBuilder, parts: DecoderParts, stream: Stream, layer: LayerTensors) -> Stream:
    with g.scope("mlp"):
        operand, stream = norm_to_operand(g, parts, stream, layer.mlp_norm, ["gate", "up"])
        return Stream(stream.residual, feed_forward(g, parts, operand, layer))
