"""The int8 graph's rounding, in float32: what a product of 8-bit weights and activations gives.

y = (x̂ · Ŵᵀ), x̂ with one scale a token and Ŵ with one an output channel, both symmetric in ±127. The graph adds in
int32 what is added here in float32; the rounding is the same.
"""

from __future__ import annotations

import torch

STEPS = 127.0
"""Of an 8-bit number on either side of zero."""


def round_rows(values: torch.Tensor) -> torch.Tensor:
    """float32 [rows, n] rounded to 127 steps of each row's largest absolute value; a row of zeros stays."""
    scale = values.abs().amax(-1, keepdim=True) / STEPS
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(values / scale) * scale


def multiply(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The int8 product of `inputs` [tokens, in] and `weight` [out, in]: float32 [tokens, out]."""
    return round_rows(inputs) @ round_rows(weight).T
