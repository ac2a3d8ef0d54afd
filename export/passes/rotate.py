"""Rotation of the residual stream, so that no channel of it stands out of the others.

RMSNorm without a gain commutes with an orthogonal Q: norm(x · Q) = norm(x) · Q. So with every norm's gain moved
into the products behind it, the stream can run as x · Q (QuaRot, arXiv:2404.00456):

    embedding E · Q      q, k, v, gate, up  W · diag(gain) · Q      o, down  Qᵀ · W      gains 1

What leaves the last norm is turned back by diag(gain) · Q, once a row; a head of the checkpoint's own has it folded in.
"""

from __future__ import annotations

import torch

from ..sources.checkpoint import HEADS
from ..sources.weights import LazyTensor, Weights
from .rotation import Rotation

UNROTATE = "norm.unrotate.weight"
"""[hidden, hidden], as a linear layer's [out, in]: from the normed rotated stream to the model's own final state."""

_ATTENTION = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")
_MLP = ("mlp.gate_proj.weight", "mlp.up_proj.weight")
_OUTPUTS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
_GAINS = ("input_layernorm.weight", "post_attention_layernorm.weight")


def rotate_stream(weights: Weights, rotation: Rotation) -> dict[str, LazyTensor]:
    """`weights` of the same function on the stream x · Q, with UNROTATE; every gain of the stream's norms is one."""
    turned = {name: _turned(name, tensor, weights, rotation) for name, tensor in weights.items()}
    gain = weights["norm.weight"]
    turned[UNROTATE] = LazyTensor(
        (rotation.size, rotation.size), torch.float32, lambda: rotation.turn_rows(torch.diag(gain.fp32()))
    )
    return turned


def _turned(name: str, tensor: LazyTensor, weights: Weights, rotation: Rotation) -> LazyTensor:
    if name == "embed_tokens.weight":
        return tensor.changed(rotation.turn_rows)
    if name == "norm.weight" or name.endswith(_GAINS):
        return tensor.changed(torch.ones_like)
    if name.endswith(_OUTPUTS):
        return tensor.changed(rotation.turn_columns)
    gain = _gain_before(name)
    if gain is None:
        return tensor
    return tensor.changed(lambda values: rotation.turn_rows(values * weights[gain].fp32()))


def _gain_before(name: str) -> str | None:
    """The gain of the norm whose output the product `name` reads."""
    layer = ".".join(name.split(".")[:2])
    if name.endswith(_ATTENTION):
        return f"{layer}.input_layernorm.weight"
    if name.endswith(_MLP):
        return f"{layer}.post_attention_layernorm.weight"
    return "norm.weight" if name in HEADS else None
