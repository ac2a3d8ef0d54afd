"""Rotary embedding tables, computed by transformers so that every scaling type has its meaning there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..sources.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class RopeTables:
    """cos and sin, each float32 `[positions, head_dim / 2]`."""

    cos: NDArray[np.float32]
    sin: NDArray[np.float32]


def compute_rope_tables(checkpoint: Checkpoint, positions: int) -> RopeTables:
    """Return cos and sin of positions 0 to `positions`, exclusive, including yarn's attention factor."""
    rotary = checkpoint.config.architecture.load_classes().rotary(checkpoint.transformers_config())
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), rotary.inv_freq.float())
    factor = float(rotary.attention_scaling)
    return RopeTables((angles.cos() * factor).numpy(), (angles.sin() * factor).numpy())
