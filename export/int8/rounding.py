"""The int8 graph's rounding, in float32.

A product there is x̂ · Ŵᵀ, x̂ with one scale a token and Ŵ with one an output channel, both symmetric in ±127. The graph
adds in int32 what is added here in float32; the rounding is the same.

What a norm gives of a rotated stream needs no scale of its own: its mean square is one whatever the token, and the
rotation leaves no channel that stands out, so its values are spread about like a normal distribution of variance one.
NORM_OUTPUT_SCALE serves every token, and nothing has to be searched for its largest channel.
"""

from __future__ import annotations

import torch

LARGEST_CODE = 127
NORM_OUTPUT_SCALE = 5.0 / LARGEST_CODE
"""What one step of the codes of a normed rotated stream is worth. Cutting at 4 standard deviations is best on average,
at 5 for the worst token, and narrow streams have tails."""


def round_rows(values: torch.Tensor) -> torch.Tensor:
    """float32 [·, n], each row rounded to multiples of its largest absolute value over 127."""
    scale = values.abs().amax(-1, keepdim=True) / LARGEST_CODE
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(values / scale) * scale


def round_normed(values: torch.Tensor) -> torch.Tensor:
    """float32 of the same shape: multiples of NORM_OUTPUT_SCALE, what lies beyond the codes cut."""
    return torch.round(values / NORM_OUTPUT_SCALE).clamp(-LARGEST_CODE - 1, LARGEST_CODE) * NORM_OUTPUT_SCALE


def multiply(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The int8 product of `inputs` [·, in] and `weight` [out, in]: float32 [·, out]."""
    return round_rows(inputs) @ round_rows(weight).T
