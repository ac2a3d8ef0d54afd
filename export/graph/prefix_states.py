"""The graphs that compute the tables of stored prefixes: the decoder of a CPU graph over one row, layer by layer.

    ids ─ layer 0 ─→ residual, update ─ layer 1 ─→ …        each layer also returns its keys and values

Operators and weights are those of the exported graph, so the tables have the bits that this one would compute. Each
layer has a graph of its own, so that only its weights are in memory.
"""

from __future__ import annotations

import onnx_ir as ir

from ..architectures import DecoderConfig, LayerTensors
from ..formats.operands import Operand, float_rows
from ..onnx_builder import MICROSOFT, OPSET, GraphBuilder
from ..sources.weights import Weights
from .attention import mix_heads, project_heads
from .decoder import Stream, embed_tokens
from .graph_options import GraphOptions
from .groups import lay_out_group
from .head_layout import lay_out_heads
from .last_attention import last_keys
from .layers import IR_VERSION, add_layer, decoder_parts, norm_to_last_operand
from .rope import RopeTables
from .state_tables import PREFIX_KEYS, PREFIX_STREAM, PREFIX_VALUES
from .tokens import declare_inputs, pack_tokens

CARRIED = {"next_residual": "residual", "next_update": "update"}
"""Output of every layer but the last → input of the next one: [p, hidden]."""


def build_state_model(
    config: DecoderConfig, weights: Weights, rope: RopeTables, options: GraphOptions, index: int
) -> ir.Model:
    """Build layer `index` over one row of p tokens.

    Inputs and outputs are those of `declare_inputs`, what is CARRIED, and the states of the row: such an output has the
    name of the table that it belongs to, and its shape, [1, ..., p, width].
    """
    g = GraphBuilder()
    wire, dtype = declare_inputs(), options.format.activations
    inputs = list(wire)
    with g.scope("rows"):
        packed = pack_tokens(g, wire, vocabulary=config.vocabulary, max_tokens=options.max_tokens)
        group = lay_out_group(g, packed, packed.row_starts, packed.lengths, None)
    parts = decoder_parts(g, config, weights, rope, options)
    with g.scope("groups"):
        layout = lay_out_heads(g, parts, group)
    outputs: dict[str, ir.Value] = {}

    def attend(operand: Operand, layer: LayerTensors) -> ir.Value:
        heads = project_heads(g, parts, layout, operand, layer)
        outputs[g.path(PREFIX_KEYS)], outputs[g.path(PREFIX_VALUES)] = heads.k, heads.v
        return mix_heads(g, parts, layout, heads, layer)

    if index == 0:
        with g.scope("embedding"):
            stream = embed_tokens(g, parts, packed)
    else:
        residual, update = (
            ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(["tokens", config.hidden]))
            for name in CARRIED.values()
        )
        inputs += [residual, update]
        stream = Stream(residual, update)
    if index < config.layers - 1:
        stream = add_layer(g, parts, attend, stream, index)
        for name, value in zip(CARRIED, (stream.residual, stream.update), strict=True):
            if value is not None:
                outputs[name] = value
    else:
        layer = parts.layer(index)
        with g.scope(f"layers.{index}"), g.scope("attention"):
            operand, _ = norm_to_last_operand(g, parts, stream, layer)
            outputs[g.path(PREFIX_KEYS)] = last_keys(g, parts, layout, operand, layer)
            outputs[g.path(PREFIX_STREAM)] = g.op("Unsqueeze", float_rows(g, operand), g.constant([0]), name="stream")
    named = []
    for name, value in outputs.items():
        output = g.op("Identity", value)
        output.name, output.type = name, ir.TensorType(dtype)
        named.append(output)
    graph = ir.Graph(
        inputs,
        named,
        nodes=g.nodes,
        initializers=g.ordered_initializers(),
        opset_imports={"": OPSET, MICROSOFT: 1},
        name="qwen3_prefix_states",
    )
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="qwen3-triton")
