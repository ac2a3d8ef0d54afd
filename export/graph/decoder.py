"""Decoder layers over packed tokens: `[T, ·]` has a row for each token, `[G, ·]` for each text's last token.

residual [T, hidden] ─ norm ─ attention ─┐
             └───────────── + ───────────┴─ norm ─ mlp ─ +  → next layer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from ..architectures import EMBEDDINGS, DecoderConfig, LayerTensors
from ..formats import WeightFormat
from ..formats.operands import Operand, ScaledRows, apply_scale
from ..onnx_builder import MICROSOFT, GraphBuilder
from ..passes.rotate import UNROTATE
from ..sources.embedding_head import LAST_TOKEN_HEAD, EmbeddingHead
from ..sources.weights import LazyTensor, Weights
from .cuda_profile import CudaProfile
from .tokens import PackedTokens

_LARGE_GAIN = 2.0**40
"""Its square is far above any activation's in bf16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderParts:
    """Inputs of every layer: shapes, weights and their format, rope tables."""

    config: DecoderConfig
    weights: Weights
    format: WeightFormat
    eps: float
    """Epsilon of the norms on the residual stream."""
    cos: ir.Value
    """[positions, head_dim / 2]"""
    sin: ir.Value
    cuda: CudaProfile | None = None
    """None for a CPU."""
    head: EmbeddingHead = LAST_TOKEN_HEAD
    """Of an embedding model."""

    @property
    def is_rotated(self) -> bool:
        """Whether the residual stream is rotated; the gains of its norms are then 1."""
        return UNROTATE in self.weights

    def layer(self, index: int) -> LayerTensors:
        """Return the tensor names of layer `index`."""
        return self.config.architecture.layer(index)

    def tensors(self, names: Sequence[str]) -> list[LazyTensor]:
        """Return the weights `names`."""
        return [self.weights[name] for name in names]

    @property
    def operator_norms_heads(self) -> bool:
        """Whether the attention operator applies the norms on queries and keys."""
        return self.cuda is not None and self.cuda.norms_heads and self.config.architecture.head_norms

    @property
    def fuses_gate(self) -> bool:
        """Whether one operator computes silu(gate) · up. QuickGelu and a product are faster, where exact enough."""
        return self.format.silu_by_exp and self.cuda is not None and self.cuda.fuses_gate

    @property
    def negates_gate(self) -> bool:
        """Whether the weights of gate and up are negated, to compute silu from exp."""
        return self.format.silu_by_exp and not self.fuses_gate


@dataclass(frozen=True, slots=True)
class Stream:
    """The residual stream and a pending update, which the next norm adds to it (SkipSimplifiedLayerNormalization)."""

    residual: ir.Value
    update: ir.Value | None


def embed_tokens(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens) -> Stream:
    """Look up the token embeddings [T, hidden]."""
    return Stream(parts.format.gather_rows(g, "table", parts.weights[EMBEDDINGS], packed.ids), None)


def normalize(
    g: GraphBuilder, parts: DecoderParts, stream: Stream, gain_tensor: str, dtype: ir.DataType | None = None
) -> tuple[ir.Value, Stream]:
    """Return the RMSNorm of the stream, and the stream with its update added.

    `dtype` is the type of the stream, by default that of activations.
    """
    gain = parts.format.load_float(g, "norm.gain", [parts.weights[gain_tensor]], transpose=False, dtype=dtype)
    if stream.update is None:
        normed = g.op(
            "SimplifiedLayerNormalization",
            stream.residual,
            gain,
            name="norm",
            axis=-1,
            epsilon=parts.eps,
            stash_type=1,
        )
        return normed, stream
    normed, _, _, residual = g.ops(
        "SkipSimplifiedLayerNormalization",
        stream.residual,
        stream.update,
        gain,
        name="norm",
        domain=MICROSOFT,
        outputs=4,
        epsilon=parts.eps,
    )
    return normed, Stream(residual, None)


def norm_to_operand(
    g: GraphBuilder, parts: DecoderParts, stream: Stream, gain: str, products: Sequence[str], *, floats: bool = False
) -> tuple[Operand, Stream]:
    """Return the normed stream [·, hidden] as the operand of `products`, and the stream with its update added.

    Args:
        g: Builder, in the scope of the products.
        parts: Parts of the decoder.
        stream: Residual stream.
        gain: Tensor name of the norm's gain.
        products: Names of the products in this scope that read the result.
        floats: Whether the operand must have float rows in any format.
    """
    width = parts.config.hidden
    # norms of a rotated stream have gain 1
    fused_norm = parts.format.fused_norm(g, products) if parts.is_rotated and not floats else None
    if fused_norm is not None:
        residual = stream.residual
        if stream.update is not None:
            residual = g.op("Add", residual, stream.update, name="residual")
        return Operand(None, fused_norm(residual, width, parts.eps)), Stream(residual, None)
    normed, stream = normalize(g, parts, stream, gain)
    return parts.format.prepare_normed(g, normed, width, products), stream


def project(g: GraphBuilder, parts: DecoderParts, name: str, operand: Operand, tensors: Sequence[str]) -> ScaledRows:
    """Multiply the operand [·, in] by the concatenated transposes of the weights `tensors`: [·, Σ out]."""
    return parts.format.project(g, name, operand, parts.tensors(tensors))


def add_biases(
    g: GraphBuilder, parts: DecoderParts, name: str, values: ir.Value, biases: Sequence[str | None]
) -> ir.Value:
    """Add the concatenated biases to `values` [·, Σ out]. Names that are None are skipped."""
    present = [bias for bias in biases if bias is not None]
    if not present:
        return values
    bias = parts.format.load_float(g, f"{name}.bias", parts.tensors(present), transpose=False)
    return g.op("Add", values, bias, name=f"{name}_biased")


def feed_forward(g: GraphBuilder, parts: DecoderParts, operand: Operand, layer: LayerTensors) -> ir.Value:
    """Return down(silu(gate(x)) · up(x)) of the normed stream."""
    width = parts.config.intermediate
    gate_weight, up_weight = parts.tensors(layer.gate_up)
    if parts.negates_gate:
        gate_weight, up_weight = (tensor.changed(torch.neg, by_rows=True) for tensor in (gate_weight, up_weight))
    gate = apply_scale(g, parts.format.project(g, "gate", operand, [gate_weight]))
    up = parts.format.project(g, "up", operand, [up_weight])
    # the scale of up's rows commutes with the product and is applied after down
    product = ScaledRows(_apply_gate(g, parts, gate, up.values), up.scale)
    inner = parts.format.prepare(g, product, width, ["down"])
    return apply_scale(g, project(g, parts, "down", inner, [layer.down]))


def _apply_gate(g: GraphBuilder, parts: DecoderParts, gate: ir.Value, up: ir.Value) -> ir.Value:
    """Return silu(gate) · up [·, intermediate]; both arguments are negated if `negates_gate`."""
    if parts.fuses_gate:
        return _apply_gate_by_norm(g, parts, gate, up)
    if parts.negates_gate:
        # silu(x) · u = (-x) · (-u) / (1 + exp(-x)), without cancellation
        one = g.scalar(1.0, parts.format.activations)
        denominator = g.op("Add", g.op("Exp", gate, name="exp"), one, name="denominator")
        return g.op("Div", g.op("Mul", gate, up, name="gate_times_up"), denominator, name="gated")
    return g.op("Mul", g.op("QuickGelu", gate, domain=MICROSOFT, alpha=1.0, name="silu"), up)


def _apply_gate_by_norm(g: GraphBuilder, parts: DecoderParts, gate: ir.Value, up: ir.Value) -> ir.Value:
    """Return silu(gate) · up by GatedRMSNorm, one kernel that computes in fp32: u / √(mean(u²) + ε) · gain · silu(x).

    ε = gain² is so large that the mean does not matter: it changes the result by a relative mean(u²) / 2ε.
    """
    gain = np.full(parts.config.intermediate, _LARGE_GAIN, parts.format.activations.numpy())
    gains, eps = g.table("mlp.gain", gain), _LARGE_GAIN**2
    return g.op("GatedRMSNorm", up, gains, gate, name="gated", domain=MICROSOFT, activation="silu", epsilon=eps)
