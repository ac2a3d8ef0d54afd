"""The decoder layers over packed tokens; `[T, ·]` holds every token, `[G, ·]` each row's last one.

residual [T, hidden] ─ norm ─ attention ─┐
             └───────────── + ───────────┴─ norm ─ mlp ─ +  → next layer
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ..config import ModelConfig
from ..weights import LazyTensor, Weights
from .builder import MICROSOFT, GraphBuilder
from .tokens import PackedTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderParts:
    """What every layer needs: shapes, weights, float type and the rope tables inside the graph."""

    config: ModelConfig
    weights: Weights
    dtype: ir.DataType
    eps: float
    """Of the norms on the residual stream."""
    cos: ir.Value
    """[positions, head_dim / 2]"""
    sin: ir.Value


@dataclass(frozen=True, slots=True)
class Stream:
    """The residual stream and what is still to be added to it; the next norm does both at once."""

    residual: ir.Value
    update: ir.Value | None


def embed_tokens(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens) -> Stream:
    """The token embeddings [T, hidden]."""
    table = load_weight(g, parts, "table", ["embed_tokens.weight"], transpose=False)
    return Stream(g.op("Gather", table, packed.ids, axis=0, name="tokens"), None)


def load_weight(
    g: GraphBuilder, parts: DecoderParts, name: str, tensors: list[str], transpose: bool = True
) -> ir.Value:
    """The tensors side by side as one initializer: matrices `[in, Σ out]`, or as they are."""
    sources = [parts.weights[tensor] for tensor in tensors]
    shape = list(sources[0].shape)
    if transpose:
        shape = [shape[1], sum(source.shape[0] for source in sources)]
    return g.weight(name, shape, parts.dtype, _loader(sources, transpose))


def _loader(sources: list[LazyTensor], transpose: bool) -> Callable[[], NDArray[np.float32]]:
    def load() -> NDArray[np.float32]:
        joined = torch.cat([source.fp32() for source in sources])
        values: NDArray[np.float32] = (joined.T if transpose else joined).numpy()
        return values

    return load


def project(g: GraphBuilder, parts: DecoderParts, name: str, hidden: ir.Value, tensors: list[str]) -> ir.Value:
    """hidden [·, in] times the tensors' transposes side by side: [·, Σ out]."""
    return g.op("MatMul", hidden, load_weight(g, parts, f"{name}.weight", tensors), name=name)


def normalize(g: GraphBuilder, parts: DecoderParts, stream: Stream, tensor: str) -> tuple[ir.Value, Stream]:
    """RMSNorm of the stream, and the stream with its update added."""
    gain = load_weight(g, parts, "norm.gain", [tensor], transpose=False)
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


def last_tokens(g: GraphBuilder, packed: PackedTokens, values: ir.Value, name: str) -> ir.Value:
    """[G, ·] from [T, ·]."""
    return g.op("Gather", values, packed.last, axis=0, name=name)


def feed_forward(g: GraphBuilder, parts: DecoderParts, hidden: ir.Value, layer: str) -> ir.Value:
    """down(silu(gate(x)) · up(x)); two products, since splitting the joint one costs more on a CPU."""
    gate = project(g, parts, "gate", hidden, [f"{layer}.mlp.gate_proj.weight"])
    up = project(g, parts, "up", hidden, [f"{layer}.mlp.up_proj.weight"])
    silu = g.op("QuickGelu", gate, domain=MICROSOFT, alpha=1.0, name="silu")
    return project(g, parts, "down", g.op("Mul", silu, up), [f"{layer}.mlp.down_proj.weight"])
