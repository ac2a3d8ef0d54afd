"""Rotary embedding tables, from the inverse frequencies of transformers, which implements the scaling types."""

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
    """Return cos and sin of the first `positions` positions, multiplied by YaRN's attention factor."""
    rotary = checkpoint.config.architecture.load_classes().rotary(checkpoint.transformers_config())
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), rotary.inv_freq.float())
    factor = float(rotary.attention_scaling)
    return RopeTables((angles.cos() * factor).numpy(), (angles.sin() * factor).numpy())
