"""The decoder layers over packed tokens; `[T, ·]` holds every token, `[G, ·]` each row's last one.

residual [T, hidden] ─ norm ─ attention ─┐
             └───────────── + ───────────┴─ norm ─ mlp ─ +  → next layer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..passes.rotate import UNROTATE
from ..sources.config import ModelConfig
from .builder import MICROSOFT, GraphBuilder
from .cuda_profile import CudaProfile
from .products import (
    Operand,
    ProductFormat,
    ScaledRows,
    gather_rows,
    load_weight,
    multiply_out,
    norm_and_round,
    prepare_operand,
    project,
    round_normed,
)
from .tokens import PackedTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderParts:
    """What every layer needs: shapes, the weights and their format, and the rope tables inside the graph."""

    config: ModelConfig
    form: ProductFormat
    eps: float
    """Of the norms on the residual stream."""
    cos: ir.Value
    """[positions, head_dim / 2]"""
    sin: ir.Value
    cuda: CudaProfile | None = None
    """None for a CPU."""

    @property
    def joint_products(self) -> bool:
        """Whether products of one operand are one product, split afterwards; that is slower on a CPU."""
        return self.cuda is not None and self.cuda.joint_products


@dataclass(frozen=True, slots=True)
class Stream:
    """The residual stream and what is still to be added to it; the next norm does both at once."""

    residual: ir.Value
    update: ir.Value | None


def embed_tokens(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens) -> Stream:
    """The token embeddings [T, hidden]."""
    return Stream(gather_rows(g, parts.form, "table", "embed_tokens.weight", packed.ids), None)


def normalize(g: GraphBuilder, parts: DecoderParts, stream: Stream, tensor: str) -> tuple[ir.Value, Stream]:
    """RMSNorm of the stream, and the stream with its update added."""
    gain = load_weight(g, parts.form, "norm.gain", [tensor], transpose=False)
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


def enter_products(
    g: GraphBuilder, parts: DecoderParts, stream: Stream, tensor: str, products: Sequence[str], *, floats: bool = False
) -> tuple[Operand, Stream]:
    """The normed stream [·, hidden] as the named products of this scope take it, and the stream with its update added.

    `floats` asks for the rows in floats as well.
    Where the stream is rotated, every gain has gone into the weights behind it, and codes need no normed rows.
    """
    form, step = parts.form, parts.form.norm_output_scale
    in_steps = step is not None and all(form.is_quantized(g.path(product)) for product in products)
    if step is not None and in_steps and not floats and UNROTATE in form.weights:
        residual = stream.residual
        if stream.update is not None:
            residual = g.op("Add", residual, stream.update, name="residual")
        codes = norm_and_round(g, residual, parts.config.hidden, parts.eps, step)
        return Operand(None, codes), Stream(residual, None)
    normed, stream = normalize(g, parts, stream, tensor)
    if step is not None and in_steps:
        return Operand(ScaledRows(normed), round_normed(g, normed, step)), stream
    return prepare_operand(g, form, ScaledRows(normed), parts.config.hidden, products), stream


def pool_last_token(g: GraphBuilder, packed: PackedTokens, values: ir.Value, name: str) -> ir.Value:
    """[G, ·] from [T, ·]."""
    return g.op("Gather", values, packed.last, axis=0, name=name)


def feed_forward(g: GraphBuilder, parts: DecoderParts, entered: Operand, layer: str) -> ir.Value:
    """down(silu(gate(x)) · up(x)) of the normed stream."""
    form, config = parts.form, parts.config
    tensors = [f"{layer}.mlp.gate_proj.weight", f"{layer}.mlp.up_proj.weight"]
    if parts.joint_products:
        joint = multiply_out(g, project(g, form, "gate_up", entered, tensors))
        gate, values = g.ops("Split", joint, g.constant([config.intermediate] * 2), axis=-1, name="halves", outputs=2)
        up = ScaledRows(values)
    else:
        gate = multiply_out(g, project(g, form, "gate", entered, tensors[:1]))
        up = project(g, form, "up", entered, tensors[1:])
    silu = g.op("QuickGelu", gate, domain=MICROSOFT, alpha=1.0, name="silu")
    # the scale of up's rows goes through the product and is multiplied out behind down
    product = ScaledRows(g.op("Mul", silu, up.values), up.scale)
    inner = prepare_operand(g, form, product, config.intermediate, ["down"])
    return multiply_out(g, project(g, form, "down", inner, [f"{layer}.mlp.down_proj.weight"]))
