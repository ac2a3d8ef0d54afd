"""Power-of-two rescale of the residual stream and of the MLP, against overflow in fp16.

RMSNorm is invariant to the scale of its input: with the embeddings, o_proj and down_proj times 2^-k, and the eps of
every norm on the residual stream times 2^-2k, the function is unchanged. Likewise with up_proj times 2^-j and
down_proj times 2^j. A power of two changes only exponents, so values that stay in range are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..architectures import EMBEDDINGS, HEADS, DecoderConfig
from ..errors import UnsupportedCheckpointError
from ..sources.weights import LazyTensor, Weights

FP16_MAX = 65504.0
HEADROOM = 8.0
"""Factor by which activations of other texts may exceed those of the probe texts without overflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationPeaks:
    """Largest absolute activations in fp32."""

    residual: float
    """Peak of the residual stream and of its updates."""
    intermediate: float
    """Peak of up and of silu(gate) · up; up may be large where silu(gate) is small."""
    projection: float = 0.0
    """Peak of q, k, v and gate, which the rescale does not affect."""

    def joined(self, other: ActivationPeaks) -> ActivationPeaks:
        """Return the elementwise maximum."""
        return ActivationPeaks(
            residual=max(self.residual, other.residual),
            intermediate=max(self.intermediate, other.intermediate),
            projection=max(self.projection, other.projection),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """Negative exponents of the two scalings; 0 changes nothing."""

    residual: int = 0
    """k: the residual stream is multiplied by 2^-k."""
    intermediate: int = 0
    """j: activations inside the MLP are multiplied by 2^-j."""

    def headroom(self, peaks: ActivationPeaks) -> float:
        """Return the factor by which all activations may exceed `peaks` without overflow."""
        scaled = (
            math.ldexp(peaks.residual, -self.residual),
            math.ldexp(peaks.intermediate, -self.intermediate),
            peaks.projection,
        )
        return FP16_MAX / max(max(scaled), 1.0)

    def eps(self, eps: float) -> float:
        """Return the eps of a norm on the rescaled residual stream."""
        return math.ldexp(eps, -2 * self.residual)


NO_RESCALE = Rescale()


def choose_rescale(peaks: ActivationPeaks) -> Rescale:
    """Return the smallest exponents with which `peaks` times HEADROOM are in fp16's range.

    Raises:
        UnsupportedCheckpointError: q, k, v or gate overflow, which no rescale can prevent.
    """
    if not peaks.projection <= FP16_MAX:
        raise UnsupportedCheckpointError(
            f"q, k, v or gate reach {peaks.projection:.3g}, beyond fp16's {FP16_MAX:.0f}; use precision fp32"
        )
    return Rescale(residual=_exponent(peaks.residual), intermediate=_exponent(peaks.intermediate))


def _exponent(peak: float) -> int:
    return max(0, math.ceil(math.log2(peak * HEADROOM / FP16_MAX))) if peak > 0 else 0


def rescale_weights(weights: Weights, config: DecoderConfig, rescale: Rescale) -> dict[str, LazyTensor]:
    """Return `weights` with both scalings applied. Norms on the residual stream must use `rescale.eps`."""
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
    return tensor.changed(lambda values: values * math.ldexp(1.0, exponent), by_rows=True)


def require_fp16_range(weights: Weights) -> dict[str, LazyTensor]:
    """Return `weights` whose values are checked when they are read.

    Reading a decoder weight outside fp16's range, or with a value that is not finite, raises
    UnsupportedCheckpointError.
    """
    return {name: tensor if name in HEADS else _checked(name, tensor) for name, tensor in weights.items()}


def _checked(name: str, tensor: LazyTensor) -> LazyTensor:
    def check(values: torch.Tensor) -> torch.Tensor:
        lowest, highest = values.aminmax()
        if not (lowest >= -FP16_MAX and highest <= FP16_MAX):
            raise UnsupportedCheckpointError(
                f"{name}: weights beyond ±{FP16_MAX:.0f} or not finite; use precision fp32"
            )
        return values

    return tensor.changed(check, by_rows=True)
