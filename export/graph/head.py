"""Heads: from final states to each row's embedding or score, in fp32 for every precision."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..architectures import FINAL_NORM, SCORE_HEAD
from ..onnx_builder import GraphBuilder
from ..passes.rotate import UNROTATE
from ..sources.embedding_head import Activation, Dense
from ..sources.weights import LazyTensor
from .attention_choice import Attention
from .decoder import DecoderParts, Stream, normalize

FP32 = ir.DataType.FLOAT
_SMALLEST_NORM = 1e-12
"""torch.nn.functional.normalize's eps."""


def embed_rows(g: GraphBuilder, parts: DecoderParts, attention: Attention, stream: Stream) -> ir.Value:
    """Return embeddings FP32 [G, D], each of L2 norm 1.

    Final norm, mean if that is the pooling, inverse rotation if needed, Dense modules, L2 norm. Last-token pooling is
    already done: `stream` has the rows' last tokens. A pooled state of zeros has an embedding of zeros, as by
    torch.nn.functional.normalize.
    """
    normed = _final_norm(g, parts, stream)
    if parts.head.pooling.reads_every_token:
        normed = attention.pool_mean(g, normed)
    if parts.is_rotated:
        unrotate = parts.format.load_float(g, "unrotate.weight", [parts.weights[UNROTATE]], dtype=FP32)
        normed = g.op("MatMul", normed, unrotate, name="unrotate")
    width = parts.config.hidden
    for index, module in enumerate(parts.head.dense):
        with g.scope(f"dense.{index}"):
            normed = _apply_dense(g, parts, module, normed)
        width = module.width
    return unit_rows(g, parts, normed, width)


def _apply_dense(g: GraphBuilder, parts: DecoderParts, module: Dense, rows: ir.Value) -> ir.Value:
    """Return activation(W · x + b) FP32 [G, out] of `rows` [G, in]."""
    if module.normalizes_input:
        rows = unit_rows(g, parts, rows, module.weight.shape[1])
    weight = parts.format.load_float(g, "weight", [module.weight], dtype=FP32)
    rows = g.op("MatMul", rows, weight, name="product")
    if module.bias is not None:
        bias = parts.format.load_float(g, "bias", [module.bias], transpose=False, dtype=FP32)
        rows = g.op("Add", rows, bias, name="biased")
    if module.activation is Activation.IDENTITY:
        return rows
    return g.op(module.activation, rows, name="activated")


def unit_rows(g: GraphBuilder, parts: DecoderParts, rows: ir.Value, width: int) -> ir.Value:
    """L2-normalize `rows` [·, width]; on a GPU by an RMSNorm with gain 1/√width, one kernel that needs no cuDNN."""
    if parts.cuda is not None:
        gain = g.table(g.path("unit.gain"), np.full(width, width**-0.5, np.float32))
        eps = _SMALLEST_NORM**2 / width
        return g.op("SimplifiedLayerNormalization", rows, gain, name="unit", axis=-1, epsilon=eps, stash_type=1)
    length = g.op("ReduceL2", rows, g.constant([-1]), keepdims=1, name="length")
    return g.op("Div", rows, g.op("Max", length, g.scalar(_SMALLEST_NORM, FP32)), name="unit")


def score_rows(g: GraphBuilder, parts: DecoderParts, stream: Stream) -> ir.Value:
    """Return scores FP32 [G, 1] in 0…1: final norm, product with the score row, sigmoid.

    On a CPU the product is elementwise with a sum for each row, because the order of sums in a matrix product may
    depend on the number of rows.
    """
    normed = _final_norm(g, parts, stream)
    head = parts.weights[SCORE_HEAD]
    if parts.cuda is not None:
        column = g.weight("score.weight", [head.shape[1], 1], FP32, lambda: _one_row(head).T)
        return g.op("Sigmoid", g.op("MatMul", normed, column, name="logit"), name="score")
    weight = g.weight("score.weight", [1, head.shape[1]], FP32, lambda: _one_row(head))
    logit = g.op("ReduceSum", g.op("Mul", normed, weight), g.constant([-1]), keepdims=1, name="logit")
    return g.op("Sigmoid", logit, name="score")


def _one_row(head: LazyTensor) -> NDArray[np.float32]:
    """Return [1, hidden]: the only row of the head, or w_yes − w_no, since softmax over two is a sigmoid."""
    rows: NDArray[np.float32] = head.fp32().numpy()
    return rows if len(rows) == 1 else rows[1:] - rows[:1]


def _final_norm(g: GraphBuilder, parts: DecoderParts, stream: Stream) -> ir.Value:
    update = None if stream.update is None else _fp32(g, parts, stream.update)
    stream = Stream(_fp32(g, parts, stream.residual), update)
    return normalize(g, parts, stream, FINAL_NORM, FP32)[0]


def _fp32(g: GraphBuilder, parts: DecoderParts, value: ir.Value) -> ir.Value:
    return value if parts.format.activations == FP32 else g.op("Cast", value, to=FP32)
