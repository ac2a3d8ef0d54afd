"""The rounding of the int8 graph, simulated in float32.

A product is x̂ · Ŵᵀ, where x̂ has one scale per token and Ŵ one per output channel, both symmetric in ±127. Sums are in
float32 instead of int32; the rounding is the same.

Norm outputs of a rotated stream need no scale per token: their mean square is 1, and without outlier channels they are
approximately normally distributed. So all tokens use NORM_OUTPUT_SCALE, which saves the search for their maxima.
"""

from __future__ import annotations

import torch

LARGEST_CODE = 127
NORM_OUTPUT_SCALE = 5.0 / LARGEST_CODE
"""Scale of the codes of norm outputs of a rotated stream: clipping at 4 standard deviations has the smallest mean
error, clipping at 5 the smallest error of the worst token."""


def round_rows(values: torch.Tensor) -> torch.Tensor:
    """Round each row of [·, n] to multiples of its largest absolute value / 127."""
    scale = values.abs().amax(-1, keepdim=True) / LARGEST_CODE
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(values / scale) * scale


def round_normed(values: torch.Tensor) -> torch.Tensor:
    """Round to multiples of NORM_OUTPUT_SCALE, clipped to the range of codes."""
    return torch.round(values / NORM_OUTPUT_SCALE).clamp(-LARGEST_CODE - 1, LARGEST_CODE) * NORM_OUTPUT_SCALE


def multiply(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the int8 product of `inputs` [·, in] and `weight` [out, in]: float32 [·, out]."""
    return round_rows(inputs) @ round_rows(weight).T
