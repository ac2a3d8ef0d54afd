"""Fusion of checkpoints: weights of several models → weights of one.

Each tensor is fused on its own, in fp32, with its values taken as one vector. With t the share of b, a pair becomes

    linear   (1 − t)·a + t·b
    slerp    sin((1 − t)·θ)/sin θ · a + sin(t·θ)/sin θ · b,   cos θ = a·b / (‖a‖·‖b‖)

The coefficients of slerp (Shoemake, SIGGRAPH 1985) are those of the angle between a and b, applied to a and b
themselves, so that lengths are interpolated as well; linear replaces slerp where |cos θ| > 0.9995, and a tensor of
zeros counts as orthogonal. Both are what mergekit does, where t is a parameter.

More than two checkpoints of weights w₁, w₂, … are fused in their order: the result so far and checkpoint k become a
pair with t = wₖ / (w₁ + … + wₖ). For linear that is the weighted mean, in every order. For slerp the order matters,
but little where the angles are small.

Invariant: where all checkpoints have equal tensors, the result has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ..options import FusionMethod
from ..sources.weights import LazyTensor

LINEAR_ABOVE = 0.9995
"""|cos θ| above which slerp is replaced by linear, as in mergekit."""
_ZERO_NORM = 1e-8
"""Norm up to which a tensor has no direction, as in mergekit."""
_CHUNK = 1 << 14
"""Values that are summed at once: so few that torch uses one thread, as sums of several depend on their number."""


def fuse_tensors(tensors: Sequence[LazyTensor], weights: Sequence[float], method: FusionMethod) -> LazyTensor:
    """Return the fused tensor, in fp32. It is computed when it is read, with one of `tensors` in memory at a time.

    Args:
        tensors: The same tensor of each checkpoint.
        weights: Weight of each checkpoint, above 0.
        method: The formula.
    """
    interpolate = _METHODS[method]

    def load() -> torch.Tensor:
        fused, total = tensors[0].fp32(), weights[0]
        for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
            total += weight
            values = tensor.fp32()
            # linear would turn -0 into 0
            if not torch.equal(fused, values):
                fused = interpolate(fused, values, weight / total)
        return fused

    return LazyTensor(tensors[0].shape, torch.float32, load)


def slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """Return the spherical interpolation of `a` and `b`, of the same shape: `a` for t = 0, `b` for t = 1."""
    norms = math.sqrt(squared_norm(a)), math.sqrt(squared_norm(b))
    cosine = dot(a, b) / (norms[0] * norms[1]) if min(norms) > _ZERO_NORM else 0.0
    if abs(cosine) > LINEAR_ABOVE:
        return torch.lerp(a, b, t)
    angle = math.acos(cosine)
    return torch.add(a * (math.sin((1 - t) * angle) / math.sin(angle)), b, alpha=math.sin(t * angle) / math.sin(angle))


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the scalar product of all values, computed in float64."""
    chunks = zip(torch.split(a.flatten(), _CHUNK), torch.split(b.flatten(), _CHUNK), strict=True)
    return sum(float((one.double() * other).sum()) for one, other in chunks)


def squared_norm(a: torch.Tensor) -> float:
    """Return the sum of the squares of all values, computed in float64."""
    return sum(
        float(torch.linalg.vector_norm(chunk, dtype=torch.float64)) ** 2 for chunk in torch.split(a.flatten(), _CHUNK)
    )


_METHODS: dict[FusionMethod, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    FusionMethod.LINEAR: torch.lerp,
    FusionMethod.SLERP: slerp,
}
