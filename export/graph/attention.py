"""Attention for CPUs over one group of texts of similar length. Only attention computes padded cells.

    [t, q·k·v] ─ gather head rows ─→ q [b, heads, s, head_dim] ─ norm ─ rope ─┐
               ├ gather head rows ─→ k [b, kv_heads, s, head_dim] ─ norm ─ rope ─ scores ─ softmax ─┐
               └ gather head rows ─→ v [b, kv_heads, s, head_dim] ────────────────────────────── context
                                         [t, heads·head_dim] ←─────────── gather head rows ─────────┘

q, k and v come from one product, and one gather per part pads rows and splits heads at the same time. The last layer
has one query per row, that of its last token, and projects values after weighting them.

Shapes: t tokens and b rows of a group, s tokens of its longest row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..architectures import LayerTensors
from ..formats.operands import Operand, ScaledRows, apply_scale, float_rows, take_rows
from ..onnx_builder import MICROSOFT, GraphBuilder
from .blocked_attention import (
    PrefixHeads,
    QueryBlocks,
    attend_in_blocks,
    attention_weights,
    lay_out_blocks,
    mask_where,
    stack_queries,
)
from .control_flow import if_else
from .decoder import DecoderParts, add_biases, project
from .groups import TextGroup
from .prefixes import GroupPrefix, PrefixTable, declare_table
from .summation import block_width

PREFIX_KEYS, PREFIX_VALUES, PREFIX_STREAM = "prefix_keys", "prefix_values", "prefix_stream"
"""Tables of stored prefixes in the scope of a layer's attention. The last layer stores the normed stream, not values.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLayout:
    """Row indices between packed tokens and the padded heads of a group, shared by all layers."""

    group: TextGroup
    query_rows: ir.Value
    """INT64 [b, heads, s]: indices of query heads in [t·(heads + 2·kv_heads), head_dim], the heads of each token's
    q, k and v concatenated."""
    key_rows: ir.Value
    """INT64 [b, kv_heads, s]: indices of key heads in the same tensor."""
    value_rows: ir.Value
    """INT64 [b, kv_heads, s]: indices of value heads in the same tensor."""
    last_key_rows: ir.Value
    """INT64 [b, kv_heads, s]: indices of key heads in [t·kv_heads, head_dim], for the last layer."""
    context_rows: ir.Value
    """INT64 [t, heads]: indices of each token's heads in [b·heads·s, head_dim]."""
    all_tokens: ir.Value
    """INT64 [1]: p + s"""
    padding_mask: ir.Value
    """FP32 [b, 1, 1, p + s]: added to the scores of a row's last token; excludes padding."""
    blocks: QueryBlocks


def lay_out_heads(g: GraphBuilder, parts: DecoderParts, group: TextGroup) -> HeadLayout:
    """Compute the layout of `group`."""
    config = parts.config
    keys, values, stride = (config.heads + part * config.kv_heads for part in range(3))
    cells, max_length = g.op("Unsqueeze", group.token_of_cell, g.constant([1])), group.max_length
    step = g.op("Mod", group.cell_of_token, max_length)
    of_row = g.op("Mul", g.op("Sub", group.cell_of_token, step), g.constant([config.heads]))
    of_head = g.op("Mul", _heads(g, range(config.heads), [1, -1]), max_length)
    first = g.op("Unsqueeze", g.op("Add", of_row, step), g.constant([1]))
    all_tokens, lengths = max_length, group.lengths
    if group.prefix is not None:
        all_tokens, lengths = (g.op("Add", group.prefix.length, own) for own in (max_length, group.lengths))
    steps = g.op("Range", g.constant(0), g.op("Squeeze", all_tokens), g.constant(1))
    lengths = g.op("Reshape", lengths, g.constant([-1, 1, 1, 1]))
    query_rows = _head_rows(g, cells, stride, range(keys), "query_rows")
    key_rows = _head_rows(g, cells, stride, range(keys, values), "key_rows")
    value_rows = _head_rows(g, cells, stride, range(values, stride), "value_rows")
    last_key_rows = _head_rows(g, cells, config.kv_heads, range(config.kv_heads), "last_key_rows")
    context_rows = g.op("Add", first, of_head, name="context_rows")
    padding_mask = mask_where(g, g.op("GreaterOrEqual", steps, lengths), "behind")
    return HeadLayout(
        group=group,
        query_rows=query_rows,
        key_rows=key_rows,
        value_rows=value_rows,
        last_key_rows=last_key_rows,
        context_rows=context_rows,
        all_tokens=all_tokens,
        padding_mask=padding_mask,
        blocks=lay_out_blocks(g, max_length, group.prefix, None if config.causal else padding_mask),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupHeads:
    """Heads of a group's rows, normed and rotated."""

    q: ir.Value
    """[b, heads, s, head_dim]"""
    k: ir.Value
    """[b, kv_heads, s, head_dim]"""
    v: ir.Value
    """[b, kv_heads, s, head_dim]"""


def attend(g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, operand: Operand, layer: LayerTensors) -> ir.Value:
    """Return every token's attention output [t, hidden] from the normed stream [t, hidden]."""
    return mix_heads(g, parts, layout, project_heads(g, parts, layout, operand, layer), layer)


def project_heads(
    g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, operand: Operand, layer: LayerTensors
) -> GroupHeads:
    """Return the heads of every token from the normed stream [t, hidden]."""
    joint = apply_scale(g, project(g, parts, "qkv", operand, layer.qkv))
    joint = add_biases(g, parts, "qkv", joint, (layer.q_bias, layer.k_bias, layer.v_bias))
    joint = _split_heads(g, parts, joint)
    q, k, v = (
        g.op("Gather", joint, rows, axis=0, name=f"{part}_grid")
        for part, rows in (("q", layout.query_rows), ("k", layout.key_rows), ("v", layout.value_rows))
    )
    q, k = (
        _rotate(g, parts, _norm(g, parts, heads, gain, part), layout.blocks.first_key, part)
        for part, heads, gain in (("q", q, layer.q_norm), ("k", k, layer.k_norm))
    )
    return GroupHeads(q=q, k=k, v=v)


def mix_heads(
    g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, heads: GroupHeads, layer: LayerTensors
) -> ir.Value:
    """Return every token's attention output [t, hidden]."""
    config, dtype, before = parts.config, parts.format.activations, None
    if layout.group.prefix is not None:
        keys, values = _key_table(g, parts), _value_table(g, parts)
        before = PrefixHeads(prefix=layout.group.prefix, keys=keys, values=values)
    context = attend_in_blocks(g, config, dtype, layout.blocks, heads.q, heads.k, heads.v, before)
    context = g.op("Gather", _split_heads(g, parts, context), layout.context_rows, axis=0, name="context_of_tokens")
    return _project_output(g, parts, g.op("Reshape", context, g.constant([-1, config.query_width])), layer)


def attend_last(
    g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, operand: Operand, layer: LayerTensors
) -> ir.Value:
    """Return the attention output [b, hidden] of each row's last token from the normed stream [t, hidden].

    With one query per row it is cheaper to apply the attention weights p to the normed stream x and W_v to the
    result: Σ p·(W_v x) = W_v (Σ p·x).
    """
    config, prefix = parts.config, layout.group.prefix
    last = take_rows(g, operand, layout.group.packed.last_tokens, "asking")
    q = _split_heads(g, parts, _project_part(g, parts, "q", last, layer.q, layer.q_bias, layer.q_norm))
    q = _norm(g, parts, q, layer.q_norm, "q")
    q = g.op("Reshape", q, g.constant([-1, config.heads, 1, config.head_dim]))
    position = g.op("Unsqueeze", g.op("Sub", layout.group.lengths, g.constant([1])), g.constant([1]))
    if prefix is not None:
        position = g.op("Add", position, layout.blocks.first_key)
    # outside of the branches, see `attend_in_blocks`
    q = stack_queries(g, config, _rotate(g, parts, q, position, "q"))
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
            for table, own in ((_key_table(g, parts), k), (_stream_table(g, parts), stream))
        )
        return mix(b, keys, all_stream)

    if prefix is None:
        weighted = mix(g, k, stream)
    else:
        weighted = if_else(
            g, "prefix", prefix.is_used, lambda b: mix_with_prefix(b, prefix), lambda b: mix(b, k, stream)
        )
    values = _project_weighted(g, parts, weighted, layer)
    return _project_output(g, parts, values, layer)


def last_keys(
    g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, operand: Operand, layer: LayerTensors
) -> ir.Value:
    """Return the keys of the last layer [b, kv_heads, s, head_dim], normed and rotated."""
    k = _split_heads(g, parts, _project_part(g, parts, "k", operand, layer.k, layer.k_bias, layer.k_norm))
    k = g.op("Gather", _norm(g, parts, k, layer.k_norm, "k"), layout.last_key_rows, axis=0, name="k_grid")
    return _rotate(g, parts, k, layout.blocks.first_key, "k")


def _key_table(g: GraphBuilder, parts: DecoderParts) -> PrefixTable:
    config = parts.config
    return declare_table(g, PREFIX_KEYS, [config.kv_heads, config.head_dim], parts.format.activations)


def _value_table(g: GraphBuilder, parts: DecoderParts) -> PrefixTable:
    config = parts.config
    return declare_table(g, PREFIX_VALUES, [config.kv_heads, config.head_dim], parts.format.activations)


def _stream_table(g: GraphBuilder, parts: DecoderParts) -> PrefixTable:
    return declare_table(g, PREFIX_STREAM, [parts.config.hidden], parts.format.activations)


def _project_part(
    g: GraphBuilder, parts: DecoderParts, name: str, operand: Operand, tensor: str, bias: str | None, gain: str | None
) -> ir.Value:
    """Return queries or keys [·, out] before their norm. If they have one, a row may still lack its scale."""
    rows = project(g, parts, name, operand, [tensor])
    # the norm on heads cancels a row's scale
    values = rows.values if gain is not None and bias is None else apply_scale(g, rows)
    return add_biases(g, parts, name, values, (bias,))


def _heads(g: GraphBuilder, heads: range, shape: list[int]) -> ir.Value:
    return g.op("Reshape", g.constant(list(heads)), g.constant(shape))


def _head_rows(g: GraphBuilder, cells: ir.Value, stride: int, heads: range, name: str) -> ir.Value:
    """Return INT64 [b, heads, s]: indices of `heads` for the tokens [b, 1, s], each of which has `stride` rows."""
    return g.op("Add", g.op("Mul", cells, g.constant([stride])), _heads(g, heads, [-1, 1]), name=name)


def _split_heads(g: GraphBuilder, parts: DecoderParts, values: ir.Value) -> ir.Value:
    """Reshape [·, heads·head_dim] to [·, head_dim]."""
    return g.op("Reshape", values, g.constant([-1, parts.config.head_dim]))


def _project_output(g: GraphBuilder, parts: DecoderParts, context: ir.Value, layer: LayerTensors) -> ir.Value:
    """Return [·, hidden] from the context [·, heads·head_dim]."""
    operand = parts.format.prepare(g, ScaledRows(context), parts.config.query_width, ["output"])
    return apply_scale(g, project(g, parts, "output", operand, [layer.output]))


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


def _norm(g: GraphBuilder, parts: DecoderParts, heads: ir.Value, gain: str | None, part: str) -> ir.Value:
    """Apply RMSNorm over head_dim to heads [..., head_dim], if the architecture has one."""
    if gain is None:
        return heads
    weight = parts.format.load_float(g, f"{part}_norm.gain", [parts.weights[gain]], transpose=False)
    eps = parts.config.norm_eps
    return g.op("SimplifiedLayerNormalization", heads, weight, name=f"{part}_norm", axis=-1, epsilon=eps, stash_type=1)


def _rotate(g: GraphBuilder, parts: DecoderParts, heads: ir.Value, position: ir.Value, part: str) -> ir.Value:
    """Apply rope to [b, heads, s, head_dim]; `position` is INT64 [1], that of the first token, or [b, s]."""
    return g.op("RotaryEmbedding", heads, position, parts.cos, parts.sin, name=f"{part}_rope", domain=MICROSOFT)
