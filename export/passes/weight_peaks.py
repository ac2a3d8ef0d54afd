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


def measure_peaks(parts: Iterable[torch.Tensor], shape: tuple[int, ...]) -> WeightPeaks:
    """Return the peaks of a matrix of `shape` [out, in] from `parts` of consecutive rows."""
    # allocated first: small tensors between large ones that are freed would keep the heap from shrinking
    peaks, first = WeightPeaks(torch.zeros(shape[0]), torch.zeros(shape[1])), 0
    for part in parts:
        for values in torch.split(part, max(1, _PART // shape[1])):
            sizes = values.abs()
            peaks.rows[first : first + len(values)] = sizes.amax(1)
            torch.maximum(peaks.columns, sizes.amax(0), out=peaks.columns)
            first += len(values)
    return peaks
