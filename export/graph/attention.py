"""Causal attention on a CPU without padded work: a loop over the rows of packed tokens.

    q, k, v [T, ·]
      └─ Loop over G rows: slice ─ q, k norm ─ rope + causal attention ─→ sequence of [L, heads·head_dim]
                                                                    └─ concat → [T, heads·head_dim]

In the last layer only each row's last token asks, so there the loop is one query against all keys, and the values are
projected after they are mixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .builder import MICROSOFT, GraphBuilder
from .decoder import DecoderParts, last_tokens
from .products import ScaledRows, load_weight, multiply_out, prepare_operand, project
from .tokens import INT64, PackedTokens


def attend(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, normed: ir.Value, layer: str) -> ir.Value:
    """Every token's attention output [T, hidden] from the normed stream [T, hidden]."""
    config, form, name = parts.config, parts.form, f"{layer}.self_attn"
    entered = prepare_operand(g, form, ScaledRows(normed), config.hidden, list("qkv"))
    # the head norm takes out the scales of q and k
    q = project(g, form, "q", entered, [f"{name}.q_proj.weight"]).values
    k = project(g, form, "k", entered, [f"{name}.k_proj.weight"]).values
    v = multiply_out(g, project(g, form, "v", entered, [f"{name}.v_proj.weight"]))
    q_gain = load_weight(g, parts.form, "q_norm.gain", [f"{name}.q_norm.weight"], transpose=False)
    k_gain = load_weight(g, parts.form, "k_norm.gain", [f"{name}.k_norm.weight"], transpose=False)

    def attend_row(b: GraphBuilder, row: ir.Value) -> ir.Value:
        start, end = _bounds(b, packed, row)
        own_q, own_k, own_v = (b.op("Slice", rows, start, end, b.constant([0]), name="own") for rows in (q, k, v))
        length = b.op("Cast", b.op("Sub", end, start), to=ir.DataType.INT32, name="length")
        context, _, _ = b.ops(
            "GroupQueryAttention",
            _norm_heads(b, parts, own_q, q_gain, config.query_width, "q_norm"),
            _norm_heads(b, parts, own_k, k_gain, config.kv_width, "k_norm"),
            b.op("Unsqueeze", own_v, b.constant([0])),
            None,
            None,
            b.op("Sub", length, b.constant([1], np.int32)),
            b.op("Squeeze", length),
            parts.cos,
            parts.sin,
            name="context",
            domain=MICROSOFT,
            outputs=3,
            num_heads=config.heads,
            kv_num_heads=config.kv_heads,
            scale=1.0 / math.sqrt(config.head_dim),
            do_rotary=1,
        )
        return b.op("Squeeze", context, b.constant([0]))

    context = _loop_over_rows(g, parts, packed, attend_row)
    return _project_output(g, parts, context, name)


def attend_last(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, normed: ir.Value, layer: str) -> ir.Value:
    """Each row's last token's attention output [G, hidden] from the normed stream [T, hidden].

    Only one token asks, so values are not needed token by token: the shares mix the normed stream itself, and each
    head's part of W_v goes over its mix, Σ p·(W_v x) = W_v (Σ p·x).
    """
    config, form, name = parts.config, parts.form, f"{layer}.self_attn"
    entered = prepare_operand(g, form, ScaledRows(normed), config.hidden, ["k"])
    keys = project(g, form, "k", entered, [f"{name}.k_proj.weight"]).values
    asking = prepare_operand(g, form, ScaledRows(last_tokens(g, packed, normed, "asking")), config.hidden, ["q"])
    queries = project(g, form, "q", asking, [f"{name}.q_proj.weight"]).values
    q_gain = load_weight(g, parts.form, "q_norm.gain", [f"{name}.q_norm.weight"], transpose=False)
    k_gain = load_weight(g, parts.form, "k_norm.gain", [f"{name}.k_norm.weight"], transpose=False)
    group = config.heads // config.kv_heads

    def mix_row(b: GraphBuilder, row: ir.Value) -> ir.Value:
        start, end = _bounds(b, packed, row)
        k = b.op("Slice", keys, start, end, b.constant([0]), name="own_keys")
        q = b.op("Gather", queries, row, axis=0, name="query")
        position = b.op("Sub", b.op("Sub", end, start), b.constant([1]), name="position")
        q = _rotate(b, parts, _norm_heads(b, parts, q, q_gain, config.query_width, "q_norm"), position, "q_rope")
        k = _rotate(b, parts, _norm_heads(b, parts, k, k_gain, config.kv_width, "k_norm"), b.constant([0]), "k_rope")
        # [kv_heads, group, head_dim] · [kv_heads, head_dim, L] → [kv_heads, group, L]
        q = b.op("Reshape", q, b.constant([config.kv_heads, group, config.head_dim]))
        k = b.op("Reshape", k, b.constant([-1, config.kv_heads, config.head_dim]))
        scores = b.op("MatMul", q, b.op("Transpose", k, perm=[1, 2, 0]), name="scores")
        scores = b.op("Mul", scores, b.scalar(1.0 / math.sqrt(config.head_dim), parts.form.dtype))
        shares = b.op("Reshape", b.op("Softmax", scores, axis=-1, name="shares"), b.constant([config.heads, -1]))
        own = b.op("Slice", normed, start, end, b.constant([0]), name="own")
        # [heads, L] · [L, hidden]
        return b.op("Unsqueeze", b.op("MatMul", shares, own, name="mix"), b.constant([0]))

    mixes = _loop_over_rows(g, parts, packed, mix_row)
    context = _project_mixes(g, parts, mixes, f"{name}.v_proj.weight")
    return _project_output(g, parts, context, name)


def _project_output(g: GraphBuilder, parts: DecoderParts, context: ir.Value, name: str) -> ir.Value:
    """[·, hidden] from the heads' answers [·, heads·head_dim]."""
    operand = prepare_operand(g, parts.form, ScaledRows(context), parts.config.query_width, ["output"])
    return multiply_out(g, project(g, parts.form, "output", operand, [f"{name}.o_proj.weight"]))


def _project_mixes(g: GraphBuilder, parts: DecoderParts, mixes: ir.Value, tensor: str) -> ir.Value:
    """Every head's mix of tokens [G, heads, hidden] through its key-value head's part of W_v: [G, heads·head_dim].

    In floats also beside 8-bit products: it has few rows.
    """
    config = parts.config
    group = config.heads // config.kv_heads
    source = parts.form.weights[tensor]

    def load() -> NDArray[np.float32]:
        heads = source.fp32().reshape(config.kv_heads, config.head_dim, config.hidden)
        values: NDArray[np.float32] = heads.transpose(1, 2).numpy()
        return values

    weight = g.weight("v.weight", [config.kv_heads, config.hidden, config.head_dim], parts.form.dtype, load)
    split = g.op("Reshape", mixes, g.constant([-1, config.kv_heads, group, config.hidden]))
    by_head = g.op("Transpose", split, perm=[1, 0, 2, 3])
    flat = g.op("Reshape", by_head, g.constant([config.kv_heads, -1, config.hidden]))
    values = g.op("MatMul", flat, weight, name="v")
    values = g.op("Reshape", values, g.constant([config.kv_heads, -1, group, config.head_dim]))
    return g.op("Reshape", g.op("Transpose", values, perm=[1, 0, 2, 3]), g.constant([-1, config.query_width]))


def _loop_over_rows(
    g: GraphBuilder,
    parts: DecoderParts,
    packed: PackedTokens,
    body: Callable[[GraphBuilder, ir.Value], ir.Value],
) -> ir.Value:
    """`body` of each good row, its outputs [·, width] end to end."""
    b = g.body()
    with b.scope("row"):
        row = ir.Value(name=b.unique_name("index"), type=ir.TensorType(INT64), shape=ir.Shape([]))
        go_on = ir.Value(name=b.unique_name("go_on"), type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
        sequence = ir.SequenceType(ir.TensorType(parts.form.dtype))
        done = ir.Value(name=b.unique_name("done"), type=sequence)
        answer = body(b, row)
        extended = b.op("SequenceInsert", done, answer, name="extended")
        extended.type = sequence
        still = b.op("Identity", go_on, name="still")
        still.type, still.shape = ir.TensorType(ir.DataType.BOOL), ir.Shape([])
    graph = ir.Graph([row, go_on, done], [still, extended], nodes=b.nodes, name=b.unique_name("row"))
    empty = g.op("SequenceEmpty", dtype=parts.form.dtype)
    rows = g.op("Loop", g.op("Size", packed.starts), None, empty, name="rows", body=graph)
    return g.op("ConcatFromSequence", rows, axis=0, name="joined")


def _bounds(b: GraphBuilder, packed: PackedTokens, row: ir.Value) -> tuple[ir.Value, ir.Value]:
    index = b.op("Unsqueeze", row, b.constant([0]))
    return b.op("Gather", packed.starts, index, name="start"), b.op("Gather", packed.ends, index, name="end")


def _norm_heads(
    b: GraphBuilder, parts: DecoderParts, heads: ir.Value, gain: ir.Value, width: int, name: str
) -> ir.Value:
    """RMSNorm over head_dim of each head: [L, width] → [1, L, width]."""
    split = b.op("Reshape", heads, b.constant([-1, width // parts.config.head_dim, parts.config.head_dim]))
    eps = parts.config.norm_eps
    normed = b.op("SimplifiedLayerNormalization", split, gain, name=name, axis=-1, epsilon=eps, stash_type=1)
    return b.op("Reshape", normed, b.constant([1, -1, width]))


def _rotate(b: GraphBuilder, parts: DecoderParts, heads: ir.Value, position: ir.Value, name: str) -> ir.Value:
    """Rope of [1, L, width] whose first token stands at `position` INT64 [1]."""
    return b.op("RotaryEmbedding", heads, position, parts.cos, parts.sin, name=name, domain=MICROSOFT)
