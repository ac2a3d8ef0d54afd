"""The int8 graph's rounding, in float32.

A product there is x̂ · Ŵᵀ, x̂ with one scale a token and Ŵ with one an output channel, both symmetric in ±127. The graph
adds in int32 what is added here in float32; the rounding is the same.
"""

from __future__ import annotations

import torch

LARGEST_CODE = 127


def round_rows(values: torch.Tensor) -> torch.Tensor:
    """float32 [·, n], each row rounded to multiples of its largest absolute value over 127."""
    scale = values.abs().amax(-1, keepdim=True) / LARGEST_CODE
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(values / scale) * scale


def multiply(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The int8 product of `inputs` [·, in] and `weight` [out, in]: float32 [·, out]."""
    return round_rows(inputs) @ round_rows(weight).T
