"""Statistics of raw samples; nothing here is stored."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MIN_REPETITIONS = 7
"""Fewer samples than this have no quartiles worth the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median and quartiles."""

    low: float
    median: float
    high: float


def spread(samples: Sequence[float]) -> Spread:
    """Quartiles of at least one sample, interpolated between neighbours."""
    if len(samples) == 1:
        return Spread(low=samples[0], median=samples[0], high=samples[0])
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(low=low, median=median, high=high)


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """How many times longer `slower` took, repetition by repetition, so that slow moments of the machine cancel.

    Raises ValueError where the two have different numbers of repetitions.
    """
    return spread([long / short for long, short in zip(slower, faster, strict=True)])
