"""Attention of the last layer of a CPU graph, which has one query per row, that of its last token.

It weights the normed stream and projects values afterwards: Σ p·(W_v x) = W_v (Σ p·x).

Shapes: t tokens and b rows of a group, s tokens of its longest row.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..architectures import LayerTensors
from ..formats.operands import Operand, apply_scale, float_rows, take_rows
from ..onnx_builder import MICROSOFT, GraphBuilder
from .blocked_attention import attention_weights, stack_queries
from .control_flow import if_else
from .decoder import DecoderParts, add_biases, project
from .head_layout import HeadLayout
from .head_operators import norm_heads, project_output, rotate_heads, split_heads
from .prefixes import GroupPrefix
from .state_tables import key_table, stream_table
from .summation import block_width


def attend_last(
    g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, operand: Operand, layer: LayerTensors
) -> ir.Value:
    """Return the attention output [b, hidden] of each row's last token from the normed stream [t, hidden].

    With one query per row it is cheaper to apply the attention weights p to the normed stream x and W_v to the
    result: Σ p·(W_v x) = W_v (Σ p·x).
    """
    config, prefix = parts.config, layout.group.prefix
    last = take_rows(g, operand, layout.group.packed.last_tokens, "asking")
    q = split_heads(g, parts, _project_part(g, parts, "q", last, layer.q, layer.q_bias, layer.q_norm))
    q = norm_heads(g, parts, q, layer.q_norm, "q")
    q = g.op("Reshape", q, g.constant([-1, config.heads, 1, config.head_dim]))
    position = g.op("Unsqueeze", g.op("Sub", layout.group.lengths, g.constant([1])), g.constant([1]))
    if prefix is not None:
        position = g.op("Add", position, layout.blocks.first_key)
    # outside of the branches, see `attend_in_blocks`
    q = stack_queries(g, config, rotate_heads(g, parts, q, position, "q"))
    k = last_keys(g, parts, layout, operand, layer)
    stream = g.op("Gather", float_rows(g, operand), layout.group.token_of_cell, axis=0, name="normed_grid")

    def mix(b: GraphBuilder, keys: ir.Value, stream: ir.Value) -> ir.Value:
        weights = attention_weights(b, config, parts.format.activations, q, keys, layout.padding_mask)
        shape = b.op("Concat", b.constant([0, config.heads]), layout.all_tokens, axis=0)
        weights = b.op("Reshape", weights, shape)
        # transposed, so that threads divide the rows and not the few outputs, see `summation`
        mixed = b.op("FusedMatMul", stream, weights, name="mix", domain=MICROSOFT, transA=1, transB=1)
        return b.op("Transpose", mixed, perm=[0, 2, 1], name="mix_by_head")

    def mix_with_prefix(b: GraphBuilder, prefix: GroupPrefix) -> ir.Value:
        keys, all_stream = (
            prefix.put_before(b, table, own)
            for table, own in ((key_table(g, parts), k), (stream_table(g, parts), stream))
        )
        return mix(b, keys, all_stream)

    if prefix is None:
        weighted = mix(g, k, stream)
    else:
        weighted = if_else(
            g, "prefix", prefix.is_used, lambda b: mix_with_prefix(b, prefix), lambda b: mix(b, k, stream)
        )
    values = _project_weighted(g, parts, weighted, layer)
    return project_output(g, parts, values, layer)


def last_keys(
    g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, operand: Operand, layer: LayerTensors
) -> ir.Value:
    """Return the keys of the last layer [b, kv_heads, s, head_dim], normed and rotated."""
    k = split_heads(g, parts, _project_part(g, parts, "k", operand, layer.k, layer.k_bias, layer.k_norm))
    k = g.op("Gather", norm_heads(g, parts, k, layer.k_norm, "k"), layout.last_key_rows, axis=0, name="k_grid")
    return rotate_heads(g, parts, k, layout.blocks.first_key, "k")


def _project_part(
    g: GraphBuilder, parts: DecoderParts, name: str, operand: Operand, tensor: str, bias: str | None, gain: str | None
) -> ir.Value:
    """Return queries or keys [·, out] before their norm. If they have one, a row may still lack its scale."""
    rows = project(g, parts, name, operand, [tensor])
    # the norm on heads cancels a row's scale
    values = rows.values if gain is not None and bias is None else apply_scale(g, rows)
    return add_biases(g, parts, name, values, (bias,))


def _project_weighted(g: GraphBuilder, parts: DecoderParts, weighted: ir.Value, layer: LayerTensors) -> ir.Value:
    """Multiply the weighted stream [b, heads, hidden] by each key-value head's part of W_v: [b, heads·head_dim].

    Computed in floats in every precision, because it has few rows; in blocks of inputs, see `summation`.
    """
    config = parts.config
    group = config.heads // config.kv_heads
    block = block_width(config.hidden)
    blocks = config.hidden // block
    source = parts.weights[layer.v]

    def load() -> NDArray[np.float32]:
        heads = source.fp32().reshape(config.kv_heads, config.head_dim, blocks, block)
        values: NDArray[np.float32] = heads.permute(0, 2, 3, 1).numpy()
        return values

    shape = [config.kv_heads, blocks, block, config.head_dim]
    weight = g.weight("v.weight", shape, parts.format.activations, load)
    split = g.op("Reshape", weighted, g.constant([-1, config.kv_heads, group, config.hidden]))
    by_head = g.op("Transpose", split, perm=[1, 0, 2, 3])
    flat = g.op("Reshape", by_head, g.constant([config.kv_heads, -1, blocks, block]))
    flat = g.op("Transpose", flat, perm=[0, 2, 1, 3])
    # a single row would use another kernel, which sums in another order
    single = group == 1
    flat = g.op("Concat", flat, flat, axis=2) if single else flat
    values = g.op("ReduceSum", g.op("MatMul", flat, weight, name="v"), g.constant([1]), keepdims=0, name="v_sum")
    values = g.ops("Split", values, axis=1, num_outputs=2, name="v_once", outputs=2)[0] if single else values
    values = g.op("Reshape", values, g.constant([config.kv_heads, -1, group, config.head_dim]))
    values = _add_value_bias(g, parts, values, layer)
    return g.op("Reshape", g.op("Transpose", values, perm=[1, 0, 2, 3]), g.constant([-1, config.query_width]))


def _add_value_bias(g: GraphBuilder, parts: DecoderParts, values: ir.Value, layer: LayerTensors) -> ir.Value:
    """Add each head's bias to `values` [kv_heads, b, group, head_dim]; exact, because attention weights sum to 1."""
    config, name = parts.config, layer.v_bias
    if name is None:
        return values

    def load() -> NDArray[np.float32]:
        bias: NDArray[np.float32] = parts.weights[name].fp32().reshape(config.kv_heads, 1, 1, config.head_dim).numpy()
        return bias

    bias = g.weight("v.bias", [config.kv_heads, 1, 1, config.head_dim], parts.format.activations, load)
    return g.op("Add", values, bias, name="v_biased")
