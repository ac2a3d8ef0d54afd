"""Largest absolute values of the rows and columns of a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

_PART = 1 << 20
"""Values at a time, which stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class WeightPeaks:
    """Largest absolute values of a matrix [out, in]."""

    rows: torch.Tensor
    """[out]"""
    columns: torch.Tensor
    """[in]"""

    def scaled(self, factor: float) -> WeightPeaks:
        """Return the peaks of the matrix times `factor`, which is positive."""
        return WeightPeaks(self.rows * factor, self.columns * factor)


def measure_peaks(parts: Iterable[torch.Tensor]) -> WeightPeaks:
    """Return the peaks of a matrix from `parts` of consecutive rows."""
    rows, columns = [], None
    for part in parts:
        for values in torch.split(part, max(1, _PART // part.shape[1])):
            sizes = values.abs()
            rows.append(sizes.amax(1))
            columns = sizes.amax(0) if columns is None else torch.maximum(columns, sizes.amax(0))
    if columns is None:
        raise ValueError("there is no part to measure")
    return WeightPeaks(torch.cat(rows), columns)
