"""Power-of-two rescale of the residual stream and of the MLP, against overflow in fp16.

RMSNorm is invariant to the scale of its input: with the embeddings, o_proj and down_proj times 2^-k, and the eps of
every norm on the residual stream times 2^-2k, the function is unchanged. Likewise with up_proj times 2^-j and
down_proj times 2^j. A power of two changes only exponents, so values that stay in range are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from ..architectures import EMBEDDINGS, FINAL_NORM, HEADS, DecoderConfig
from ..errors import UnsupportedCheckpointError
from ..sources.weights import LazyTensor, Weights
from .weight_peaks import WeightPeaks

FP16_MAX = 65504.0
HEADROOM = 8.0
"""Factor by which activations of other texts may exceed those of the probe texts without overflow."""


_BEYOND = f"beyond fp16's ±{FP16_MAX:.0f}, and no other weight can make up for it; use precision fp32, or bf16 on a GPU"
_SMALL_EMBEDDING, _USUAL_EMBEDDING = 2.0**-8, 2.0**-2
"""The stream is scaled up if the largest value of the embeddings is below the first, as far as to the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationPeaks:
    """Largest absolute activations in fp32."""

    residual: float
    """Peak of the residual stream and of its updates."""
    intermediate: float
    """Peak of up and of silu(gate) · up; up may be large where silu(gate) is small."""
    projection: float = 0.0
    """Peak of q, k, v and gate, which the rescale does not affect."""
    channels: Mapping[str, torch.Tensor] = field(default_factory=dict, compare=False)
    """Weight of q, k, v, gate or up → peaks of its outputs [out], like those above."""
    weights: Mapping[str, WeightPeaks] = field(default_factory=dict, compare=False)
    """Matrix of a layer → its own peaks."""

    def joined(self, other: ActivationPeaks) -> ActivationPeaks:
        """Return the elementwise maximum."""
        channels = dict(self.channels)
        for name, peaks in other.channels.items():
            channels[name] = torch.maximum(channels[name], peaks) if name in channels else peaks
        return ActivationPeaks(
            residual=max(self.residual, other.residual),
            intermediate=max(self.intermediate, other.intermediate),
            projection=max(self.projection, other.projection),
            channels=channels,
            weights={**self.weights, **other.weights},
        )

    def with_channels(self, channels: Mapping[str, torch.Tensor], config: DecoderConfig) -> ActivationPeaks:
        """Return the peaks with those of `channels`, which are of all layers or empty."""
        if not channels:
            return self
        up = {config.architecture.layer(index).up for index in range(config.layers)}
        return replace(
            self,
            intermediate=max(float(peaks.max()) for name, peaks in channels.items() if name in up),
            projection=max(float(peaks.max()) for name, peaks in channels.items() if name not in up),
            channels=channels,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """Negative exponents of the two scalings; 0 changes nothing."""

    residual: int = 0
    """k: the residual stream is multiplied by 2^-k; it may be negative."""
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


def choose_rescale(peaks: ActivationPeaks, largest_embedding: float = math.inf) -> Rescale:
    """Return the smallest exponents with which `peaks` times HEADROOM are in fp16's range.

    The residual stream is scaled up, by a negative exponent, if `largest_embedding`, the largest absolute value of the
    table, is so small that rounding to fp16's subnormals would change the others.
    """
    residual = _exponent(peaks.residual)
    if residual <= 0:
        wanted = math.log2(largest_embedding / _USUAL_EMBEDDING) if 0 < largest_embedding < _SMALL_EMBEDDING else 0
        residual = max(residual, math.floor(wanted))
    return Rescale(residual=residual, intermediate=max(0, _exponent(peaks.intermediate)))


def _exponent(peak: float) -> int:
    """Return the smallest exponent with which `peak` times HEADROOM is in range; it may be negative."""
    return math.ceil(math.log2(peak * HEADROOM / FP16_MAX)) if peak > 0 else 0


def require_activation_range(peaks: ActivationPeaks, rescale: Rescale) -> None:
    """Raise UnsupportedCheckpointError if activations overflow after the rescale, which does not affect some."""
    if not (math.ldexp(peaks.intermediate, -rescale.intermediate) <= FP16_MAX and peaks.projection <= FP16_MAX):
        largest = peaks.intermediate if peaks.projection <= FP16_MAX else peaks.projection
        names = (name for name, values in peaks.channels.items() if float(values.max()) == largest)
        raise UnsupportedCheckpointError(
            f"{next(names, 'q, k, v or gate')}: activations reach {largest:.3g}, {_BEYOND}"
        )


def largest_value(tensor: LazyTensor) -> float:
    """Return the largest absolute value of a tensor."""
    return max(float(part.abs().max()) for part in tensor.fp32_parts())


def rescale_weights(weights: Weights, config: DecoderConfig, rescale: Rescale) -> dict[str, LazyTensor]:
    """Return `weights` with both scalings applied. Norms on the residual stream must use `rescale.eps`."""
    exponents = rescale_exponents(config, rescale)
    return {name: _scaled(tensor, exponents.get(name, 0)) for name, tensor in weights.items()}


def rescale_exponents(config: DecoderConfig, rescale: Rescale) -> dict[str, int]:
    """Return the exponent e of the weights that `rescale` multiplies by 2^e."""
    exponents = {EMBEDDINGS: -rescale.residual}
    for index in range(config.layers):
        layer = config.architecture.layer(index)
        exponents[layer.output] = -rescale.residual
        exponents[layer.up] = -rescale.intermediate
        exponents[layer.down] = rescale.intermediate - rescale.residual
    return exponents


def _scaled(tensor: LazyTensor, exponent: int) -> LazyTensor:
    if exponent == 0:
        return tensor
    return tensor.changed(lambda values: values * math.ldexp(1.0, exponent), by_rows=True)


def require_fp16_range(weights: Weights) -> dict[str, LazyTensor]:
    """Return `weights` whose values are checked when they are read.

    Reading a decoder weight outside fp16's range, or with a value that is not finite, raises
    UnsupportedCheckpointError. The head, which is computed in fp32, is not checked.
    """
    in_fp32 = (*HEADS, FINAL_NORM)
    return {name: tensor if name in in_fp32 else _checked(name, tensor) for name, tensor in weights.items()}


def _checked(name: str, tensor: LazyTensor) -> LazyTensor:
    def check(values: torch.Tensor) -> torch.Tensor:
        lowest, highest = values.aminmax()
        if not (lowest >= -FP16_MAX and highest <= FP16_MAX):
            raise UnsupportedCheckpointError(f"{name}: weights are not finite or {_BEYOND}")
        return values

    return tensor.changed(check, by_rows=True)
