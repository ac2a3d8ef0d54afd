"""Rotary embedding tables, taken from transformers so that every scaling type means what it means there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding


@dataclass(frozen=True, slots=True)
class RopeTables:
    """cos and sin, each float32 `[positions, head_dim / 2]`."""

    cos: NDArray[np.float32]
    sin: NDArray[np.float32]


def compute_rope_tables(config: Qwen3Config, positions: int) -> RopeTables:
    """cos and sin of positions 0 to `positions`, exclusive, the attention factor of yarn included."""
    rotary = Qwen3RotaryEmbedding(config)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), rotary.inv_freq.float())
    factor = float(rotary.attention_scaling)
    return RopeTables((angles.cos() * factor).numpy(), (angles.sin() * factor).numpy())
