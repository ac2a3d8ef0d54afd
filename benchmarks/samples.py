"""Statistics of raw samples; nothing here is stored."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .record import Requests

MIN_REPETITIONS = 7
"""Fewer samples than this have no quartiles worth the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median and quartiles."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """The 50th, 95th and 99th."""

    p50: float
    p95: float
    p99: float


def spread(samples: Sequence[float]) -> Spread:
    """Quartiles of at least one sample, interpolated between neighbours."""
    if len(samples) == 1:
        return Spread(low=samples[0], median=samples[0], high=samples[0])
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(low=low, median=median, high=high)


def percentiles(samples: Sequence[float]) -> Percentiles:
    """Percentiles of at least one sample by nearest rank, so that each is a time that was measured.

    With fewer than a hundred samples the 99th is the slowest one.
    """
    ordered = sorted(samples)
    ranks = (max(math.ceil(share * len(ordered) / 100), 1) - 1 for share in (50, 95, 99))
    p50, p95, p99 = (ordered[rank] for rank in ranks)
    return Percentiles(p50=p50, p95=p95, p99=p99)


def repetition_means(samples: Sequence[float], passes: int) -> list[float]:
    """Mean of each repetition's `passes` samples in a row.

    Raises ValueError where a repetition is not whole.
    """
    if passes < 1 or len(samples) % passes:
        raise ValueError(f"{len(samples)} samples are no whole repetitions of {passes}")
    return [statistics.fmean(samples[first : first + passes]) for first in range(0, len(samples), passes)]


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """How many times longer `slower` took, repetition by repetition, so that slow moments of the machine cancel.

    Raises ValueError where the two have different numbers of repetitions.
    """
    return spread([long / short for long, short in zip(slower, faster, strict=True)])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpeed:
    """What a load got through."""

    requests_per_s: float
    failed: int


def load_speed(requests: Requests) -> LoadSpeed:
    """Answered requests a second, from the first start to the last answer; raises ValueError without any request."""
    answered = [place for place, error in enumerate(requests.error) if error is None]
    if not requests.start_s:
        raise ValueError("a load without a request has no speed")
    ends = [start + latency for start, latency in zip(requests.start_s, requests.latency_s, strict=True)]
    return LoadSpeed(
        requests_per_s=len(answered) / (max(ends) - min(requests.start_s)),
        failed=len(requests.error) - len(answered),
    )


def answered_latencies(requests: Sequence[Requests]) -> list[float]:
    """Seconds of every request of every repetition that was answered."""
    return [
        latency for each in requests for latency, error in zip(each.latency_s, each.error, strict=True) if error is None
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCurve:
    """Seconds = fixed + linear x + square x²."""

    fixed: float
    linear: float
    square: float

    def at(self, size: float) -> float:
        """Seconds at a size."""
        return self.fixed + self.linear * size + self.square * size**2


def fit_cost(sizes: Sequence[float], seconds: Sequence[float], *, square: bool) -> CostCurve:
    """The curve with coefficients of 0 and more that errs least, relative to what was measured.

    Least squares over every subset of the terms, which with three of them is exact. `square=False` leaves x² out.
    Raises ValueError without a point, or where a time is not above 0.
    """
    if not sizes or min(seconds) <= 0:
        raise ValueError("a curve needs times above 0")
    x, y = np.asarray(sizes, float), np.asarray(seconds, float)
    terms = np.stack([np.ones_like(x), x, x**2], axis=1) / y[:, None]
    best, least = np.zeros(3), float(len(x))
    for used in itertools.product((True, False), repeat=3):
        columns = [place for place, use in enumerate(used) if use and (square or place < 2)]
        found, *_ = np.linalg.lstsq(terms[:, columns], np.ones_like(x), rcond=None)
        error = float(((terms[:, columns] @ found - 1) ** 2).sum())
        if (found >= 0).all() and error < least:
            best, least = np.zeros(3), error
            best[columns] = found
    return CostCurve(fixed=float(best[0]), linear=float(best[1]), square=float(best[2]))
