"""Causal attention on a CPU over one group of texts of like length; only attention sees the few padded cells.

    [t, q·k·v] ─ gather head rows ─→ q [b, heads, s, head_dim] ─ norm ─ rope ─┐
               ├ gather head rows ─→ k [b, kv_heads, s, head_dim] ─ norm ─ rope ─ scores ─ shares ─┐
               └ gather head rows ─→ v [b, kv_heads, s, head_dim] ───────────────────────────── context
                                         [t, heads·head_dim] ←─────────── gather head rows ────────┘

One gather lays out rows and heads at once, out of one product for q, k and v. In the last layer only each row's last
token asks, and the values are projected after they are mixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..architectures import LayerTensors
from ..formats.operands import Operand, ScaledRows, float_rows, multiply_out, take_rows
from ..onnx_builder import MICROSOFT, GraphBuilder
from .causal_attention import QueryBlocks, attend_causally, attention_weights, lay_out_blocks, mask_where, stack_queries
from .decoder import DecoderParts, add_biases, project
from .groups import TextGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLayout:
    """Where each head of each token stands in the grid of a group, for all layers."""

    group: TextGroup
    query_rows: ir.Value
    """INT64 [b, heads, s]: row of [t·(heads + 2·kv_heads), head_dim], a token's q, k and v one behind the other."""
    key_rows: ir.Value
    """INT64 [b, kv_heads, s]: of the same rows."""
    value_rows: ir.Value
    """INT64 [b, kv_heads, s]: of the same rows."""
    last_key_rows: ir.Value
    """INT64 [b, kv_heads, s]: row of [t·kv_heads, head_dim], keys alone."""
    context_rows: ir.Value
    """INT64 [t, heads]: row of [b·heads·s, head_dim]."""
    behind: ir.Value
    """FP32 [b, 1, 1, s]: what is added to the scores of a row's last token."""
    blocks: QueryBlocks


def lay_out_heads(g: GraphBuilder, parts: DecoderParts, group: TextGroup) -> HeadLayout:
    """The layout of `group`."""
    config = parts.config
    keys, values, stride = (config.heads + part * config.kv_heads for part in range(3))
    cells, longest = g.op("Unsqueeze", group.token_of_cell, g.constant([1])), group.longest
    step = g.op("Mod", group.cell_of_token, longest)
    of_row = g.op("Mul", g.op("Sub", group.cell_of_token, step), g.constant([config.heads]))
    of_head = g.op("Mul", _heads(g, range(config.heads), [1, -1]), longest)
    first = g.op("Unsqueeze", g.op("Add", of_row, step), g.constant([1]))
    steps = g.op("Range", g.constant(0), g.op("Squeeze", longest), g.constant(1))
    lengths = g.op("Reshape", group.lengths, g.constant([-1, 1, 1, 1]))
    return HeadLayout(
        group=group,
        query_rows=_head_rows(g, cells, stride, range(keys), "query_rows"),
        key_rows=_head_rows(g, cells, stride, range(keys, values), "key_rows"),
        value_rows=_head_rows(g, cells, stride, range(values, stride), "value_rows"),
        last_key_rows=_head_rows(g, cells, config.kv_heads, range(config.kv_heads), "last_key_rows"),
        context_rows=g.op("Add", first, of_head, name="context_rows"),
        behind=mask_where(g, g.op("GreaterOrEqual", steps, lengths), "behind"),
        blocks=lay_out_blocks(g, longest),
    )


def attend(g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, entered: Operand, layer: LayerTensors) -> ir.Value:
    """Return every token's attention output [t, hidden] from the normed stream [t, hidden]."""
    config = parts.config
    joint = multiply_out(g, project(g, parts, "qkv", entered, layer.qkv))
    joint = add_biases(g, parts, "qkv", joint, (layer.q_bias, layer.k_bias, layer.v_bias))
    joint = _split_heads(g, parts, joint)
    q, k, v = (
        g.op("Gather", joint, rows, axis=0, name=f"{part}_grid")
        for part, rows in (("q", layout.query_rows), ("k", layout.key_rows), ("v", layout.value_rows))
    )
    first = g.constant([0])
    q, k = (
        _rotate(g, parts, _norm(g, parts, heads, gain, part), first, part)
        for part, heads, gain in (("q", q, layer.q_norm), ("k", k, layer.k_norm))
    )
    context = attend_causally(g, config, parts.format.activations, layout.blocks, q, k, v)
    context = g.op("Gather", _split_heads(g, parts, context), layout.context_rows, axis=0, name="context_of_tokens")
    return _project_output(g, parts, g.op("Reshape", context, g.constant([-1, config.query_width])), layer)


def attend_last(
    g: GraphBuilder, parts: DecoderParts, layout: HeadLayout, entered: Operand, layer: LayerTensors
) -> ir.Value:
    """Return each row's last token's attention output [b, hidden] from the normed stream [t, hidden].

    There is one query for each row, so values are not needed token by token: the attention weights p are applied to
    the normed stream x itself, and each head's part of W_v to the result, Σ p·(W_v x) = W_v (Σ p·x).
    """
    config = parts.config
    k = _split_heads(g, parts, _project_part(g, parts, "k", entered, layer.k, layer.k_bias, layer.k_norm))
    last = take_rows(g, entered, layout.group.packed.last, "asking")
    q = _split_heads(g, parts, _project_part(g, parts, "q", last, layer.q, layer.q_bias, layer.q_norm))
    q = _norm(g, parts, q, layer.q_norm, "q")
    q = g.op("Reshape", q, g.constant([-1, config.heads, 1, config.head_dim]))
    position = g.op("Unsqueeze", g.op("Sub", layout.group.lengths, g.constant([1])), g.constant([1]))
    q = _rotate(g, parts, q, position, "q")
    k = g.op("Gather", _norm(g, parts, k, layer.k_norm, "k"), layout.last_key_rows, axis=0, name="k_grid")
    k = _rotate(g, parts, k, g.constant([0]), "k")
    weights = attention_weights(g, config, parts.format.activations, stack_queries(g, config, q), k, layout.behind)
    weights = g.op("Reshape", weights, g.op("Concat", g.constant([0, config.heads]), layout.group.longest, axis=0))
    grid = g.op("Gather", float_rows(g, entered), layout.group.token_of_cell, axis=0, name="normed_grid")
    weighted = g.op("MatMul", weights, grid, name="mix")
    values = _project_weighted(g, parts, weighted, layer)
    return _project_output(g, parts, values, layer)


def _project_part(
    g: GraphBuilder, parts: DecoderParts, name: str, entered: Operand, tensor: str, bias: str | None, gain: str | None
) -> ir.Value:
    """Queries or keys [·, out] before their norm; up to a positive factor for each row if they have one."""
    rows = project(g, parts, name, entered, [tensor])
    # a norm on heads removes the scale of a row
    values = rows.values if gain is not None and bias is None else multiply_out(g, rows)
    return add_biases(g, parts, name, values, (bias,))


def _heads(g: GraphBuilder, heads: range, shape: list[int]) -> ir.Value:
    return g.op("Reshape", g.constant(list(heads)), g.constant(shape))


def _head_rows(g: GraphBuilder, cells: ir.Value, stride: int, heads: range, name: str) -> ir.Value:
    """INT64 [b, heads, s] from cells [b, 1, s], a token having `stride` rows."""
    return g.op("Add", g.op("Mul", cells, g.constant([stride])), _heads(g, heads, [-1, 1]), name=name)


def _split_heads(g: GraphBuilder, parts: DecoderParts, values: ir.Value) -> ir.Value:
    """Head rows [· heads, head_dim]."""
    return g.op("Reshape", values, g.constant([-1, parts.config.head_dim]))


def _project_output(g: GraphBuilder, parts: DecoderParts, context: ir.Value, layer: LayerTensors) -> ir.Value:
    """[·, hidden] from the heads' contexts [·, heads·head_dim]."""
    operand = parts.format.prepare(g, ScaledRows(context), parts.config.query_width, ["output"])
    return multiply_out(g, project(g, parts, "output", operand, [layer.output]))


def _project_weighted(g: GraphBuilder, parts: DecoderParts, weighted: ir.Value, layer: LayerTensors) -> ir.Value:
    """Multiply weighted tokens [b, heads, hidden] by their key-value head's part of W_v: [b, heads·head_dim].

    In floats even where other products are 8 bits: it has few rows.
    """
    config = parts.config
    group = config.heads // config.kv_heads
    source = parts.weights[layer.v]

    def load() -> NDArray[np.float32]:
        heads = source.fp32().reshape(config.kv_heads, config.head_dim, config.hidden)
        values: NDArray[np.float32] = heads.transpose(1, 2).numpy()
        return values

    weight = g.weight("v.weight", [config.kv_heads, config.hidden, config.head_dim], parts.format.activations, load)
    split = g.op("Reshape", weighted, g.constant([-1, config.kv_heads, group, config.hidden]))
    by_head = g.op("Transpose", split, perm=[1, 0, 2, 3])
    flat = g.op("Reshape", by_head, g.constant([config.kv_heads, -1, config.hidden]))
    # a single row would take another kernel, which sums in another order
    single = group == 1
    flat = g.op("Concat", flat, flat, axis=1) if single else flat
    values = g.op("MatMul", flat, weight, name="v")
    values = g.ops("Split", values, axis=1, num_outputs=2, name="v_once", outputs=2)[0] if single else values
    values = g.op("Reshape", values, g.constant([config.kv_heads, -1, group, config.head_dim]))
    values = _add_value_bias(g, parts, values, layer)
    return g.op("Reshape", g.op("Transpose", values, perm=[1, 0, 2, 3]), g.constant([-1, config.query_width]))


def _add_value_bias(g: GraphBuilder, parts: DecoderParts, values: ir.Value, layer: LayerTensors) -> ir.Value:
    """`values` [kv_heads, b, group, head_dim] plus each head's bias, since attention weights sum to 1."""
    config, name = parts.config, layer.v_bias
    if name is None:
        return values

    def load() -> NDArray[np.float32]:
        bias: NDArray[np.float32] = parts.weights[name].fp32().reshape(config.kv_heads, 1, 1, config.head_dim).numpy()
        return bias

    bias = g.weight("v.bias", [config.kv_heads, 1, 1, config.head_dim], parts.format.activations, load)
    return g.op("Add", values, bias, name="v_biased")


def _norm(g: GraphBuilder, parts: DecoderParts, heads: ir.Value, gain: str | None, part: str) -> ir.Value:
    """RMSNorm over head_dim of each head [..., head_dim], if the architecture has one."""
    if gain is None:
        return heads
    weight = parts.format.load_float(g, f"{part}_norm.gain", [parts.weights[gain]], transpose=False)
    eps = parts.config.norm_eps
    return g.op("SimplifiedLayerNormalization", heads, weight, name=f"{part}_norm", axis=-1, epsilon=eps, stash_type=1)


def _rotate(g: GraphBuilder, parts: DecoderParts, heads: ir.Value, position: ir.Value, part: str) -> ir.Value:
    """Apply rope to [b, heads, s, head_dim], whose first of s is at `position` INT64 [1], or [b, s] for each one."""
    return g.op("RotaryEmbedding", heads, position, parts.cos, parts.sin, name=f"{part}_rope", domain=MICROSOFT)
