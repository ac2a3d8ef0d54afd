"""Statistics derived from raw samples; none of them is stored in a record."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .record import Requests

MIN_REPETITIONS = 7
"""Fewest samples from which quartiles are meaningful."""
FEWEST_REPETITIONS = 3
"""Repetitions of a workload that are measured however long they take; the spread of so few is their whole range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quartiles:
    """Median, lower and upper quartile; of fewer than MIN_REPETITIONS samples, the lowest and the highest instead."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """The 50th, 95th and 99th percentile."""

    p50: float
    p95: float
    p99: float


def quartiles(samples: Sequence[float]) -> Quartiles:
    """Return the quartiles of at least one sample, interpolated linearly, or the range of a few samples."""
    if len(samples) < MIN_REPETITIONS:
        return Quartiles(low=min(samples), median=statistics.median(samples), high=max(samples))
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Quartiles(low=low, median=median, high=high)


def percentiles(samples: Sequence[float]) -> Percentiles:
    """Return the percentiles of at least one sample by nearest rank, so that each is a measured value.

    With fewer than a hundred samples the 99th percentile is the maximum.
    """
    ordered = sorted(samples)
    ranks = (max(math.ceil(percent * len(ordered) / 100), 1) - 1 for percent in (50, 95, 99))
    p50, p95, p99 = (ordered[rank] for rank in ranks)
    return Percentiles(p50=p50, p95=p95, p99=p99)


def repetition_means(samples: Sequence[float], passes: int) -> list[float]:
    """Return the mean of each repetition's `passes` consecutive samples.

    Raises:
        ValueError: if the last repetition is incomplete.
    """
    if passes < 1 or len(samples) % passes:
        raise ValueError(f"{len(samples)} samples cannot be divided into repetitions of {passes}")
    return [statistics.fmean(samples[first : first + passes]) for first in range(0, len(samples), passes)]


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> Quartiles:
    """Return the quartiles of `slower / faster` by repetition, so that slow phases of the machine cancel out.

    Raises:
        ValueError: if the numbers of repetitions differ.
    """
    return quartiles([long / short for long, short in zip(slower, faster, strict=True)])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadThroughput:
    """Throughput of a load and its number of failed requests."""

    requests_per_s: float
    failed: int


def load_throughput(requests: Requests) -> LoadThroughput:
    """Return the successful requests per second from the first start to the last response.

    Raises:
        ValueError: if there are no requests.
    """
    successful = sum(error is None for error in requests.error)
    if not requests.start_s:
        raise ValueError("a load without requests has no throughput")
    ends = [start + latency for start, latency in zip(requests.start_s, requests.latency_s, strict=True)]
    return LoadThroughput(
        requests_per_s=successful / (max(ends) - min(requests.start_s)),
        failed=len(requests.error) - successful,
    )


def successful_latencies(requests: Sequence[Requests]) -> list[float]:
    """Return the latencies in seconds of the successful requests of all repetitions."""
    return [
        latency for each in requests for latency, error in zip(each.latency_s, each.error, strict=True) if error is None
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCurve:
    """Seconds as a quadratic function of a size: constant + linear · x + quadratic · x²."""

    constant: float
    linear: float
    quadratic: float

    def at(self, size: float) -> float:
        """Return the seconds at `size`."""
        return self.constant + self.linear * size + self.quadratic * size**2


def fit_cost(sizes: Sequence[float], seconds: Sequence[float], *, quadratic: bool) -> CostCurve:
    """Fit the curve with non-negative coefficients and the least squared relative error.

    Solves least squares for every subset of the terms, which is exact for three of them.

    Args:
        sizes: x values.
        seconds: measured times, above 0.
        quadratic: whether to include the quadratic term.

    Raises:
        ValueError: if there are no points, or a time is not above 0.
    """
    if not sizes or min(seconds) <= 0:
        raise ValueError("fitting needs at least one point and times above 0")
    x, y = np.asarray(sizes, float), np.asarray(seconds, float)
    terms = np.stack([np.ones_like(x), x, x**2], axis=1) / y[:, None]
    best, least_error = np.zeros(3), float(len(x))
    for used in itertools.product((True, False), repeat=3):
        columns = [index for index, use in enumerate(used) if use and (quadratic or index < 2)]
        found, *_ = np.linalg.lstsq(terms[:, columns], np.ones_like(x), rcond=None)
        error = float(((terms[:, columns] @ found - 1) ** 2).sum())
        if (found >= 0).all() and error < least_error:
            best, least_error = np.zeros(3), error
            best[columns] = found
    return CostCurve(constant=float(best[0]), linear=float(best[1]), quadratic=float(best[2]))
