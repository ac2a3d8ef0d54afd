"""Power-of-two rescale of the residual stream and of the MLP, against overflow in fp16.

RMSNorm does not see the scale of its input: with the embedding, o_proj and down_proj times 2^-k and every
eps of a norm on the residual stream times 2^-2k the model's function is unchanged. up_proj times 2^-j with
down_proj times 2^j does the same inside the MLP. A power of two changes exponents only, so every value
that stays in range is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..architectures import EMBEDDINGS, HEADS, DecoderConfig
from ..errors import UnsupportedCheckpointError, list_keys
from ..sources.weights import LazyTensor, Weights

FP16_MAX = 65504.0
HEADROOM = 8.0
"""Activations of unseen texts may be this much larger than the probes' before they overflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationPeaks:
    """Largest absolute activations seen in fp32."""

    residual: float
    """Of the residual stream and of what is added to it."""
    intermediate: float
    """Of up and of silu(gate) · up; up may be large where silu(gate) is next to nothing."""
    projection: float = 0.0
    """Of q, k, v and gate, which no scaling here reaches."""

    def joined(self, other: ActivationPeaks) -> ActivationPeaks:
        """The larger of each."""
        return ActivationPeaks(
            residual=max(self.residual, other.residual),
            intermediate=max(self.intermediate, other.intermediate),
            projection=max(self.projection, other.projection),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """Exponents of the two scalings; 0 leaves things as they are."""

    residual: int = 0
    intermediate: int = 0

    def eps(self, eps: float) -> float:
        """The eps of a norm on the rescaled residual stream."""
        return math.ldexp(eps, -2 * self.residual)


NO_RESCALE = Rescale()


def choose_rescale(peaks: ActivationPeaks) -> Rescale:
    """The smallest exponents that keep `peaks` below fp16's largest number by HEADROOM.

    Raises UnsupportedCheckpointError where q, k, v or gate overflow, which no exponent mends.
    """
    if not peaks.projection <= FP16_MAX:
        raise UnsupportedCheckpointError(
            f"q, k, v or gate reach {peaks.projection:.3g}, beyond fp16's {FP16_MAX:.0f}: export with precision fp32"
        )
    return Rescale(residual=_exponent(peaks.residual), intermediate=_exponent(peaks.intermediate))


def _exponent(peak: float) -> int:
    return max(0, math.ceil(math.log2(peak * HEADROOM / FP16_MAX))) if peak > 0 else 0


def rescale_weights(weights: Weights, config: DecoderConfig, rescale: Rescale) -> dict[str, LazyTensor]:
    """Return `weights` with both scalings folded in; the eps of the stream's norms must become `rescale.eps`."""
    exponents = {EMBEDDINGS: -rescale.residual}
    for index in range(config.layers):
        layer = config.architecture.layer(index)
        exponents[layer.output] = -rescale.residual
        exponents[layer.up] = -rescale.intermediate
        exponents[layer.down] = rescale.intermediate - rescale.residual
    return {name: _scaled(tensor, exponents.get(name, 0)) for name, tensor in weights.items()}


def _scaled(tensor: LazyTensor, exponent: int) -> LazyTensor:
    if exponent == 0:
        return tensor
    return tensor.changed(lambda values: values * math.ldexp(1.0, exponent))


def check_fp16_range(weights: Weights) -> None:
    """Raises UnsupportedCheckpointError, listing the tensors, where a weight of the body is outside fp16's range."""
    body = {name: tensor for name, tensor in weights.items() if name not in HEADS}
    outside = [name for name, tensor in body.items() if not bool(tensor.fp32().abs().max() <= FP16_MAX)]
    if outside:
        raise UnsupportedCheckpointError(
            f"weights beyond ±{FP16_MAX:.0f} or not finite: {list_keys(outside)}; export with precision fp32"
        )
