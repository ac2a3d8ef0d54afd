"""Checks contenders against the reference, then times them in turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .contenders.contender import Contender, Rows, Vectors
from .environment import load_average
from .record import Sample

_ORDER_SEED = 7
_PAUSE_S = 0.05
"""Between two contenders, so that spinning threads of the one do not run into the other's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Samples by contender, in the contenders' order."""

    warmups: list[list[Sample]]
    samples: list[list[Sample]]
    load_average: list[float]


def min_cosine(vectors: Vectors, reference: Vectors) -> float:
    """Smallest cosine of rows with the same rows of `reference`, both [n, hidden]; NaN where a row holds one."""
    a, b = vectors.astype(np.float64), reference.astype(np.float64)
    cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(cosines.min())


def check_vectors(contender: Contender, rows: Rows, reference: Vectors) -> tuple[float, str | None]:
    """Its smallest cosine to the reference, and what is wrong with it, None where nothing is."""
    cosine = min_cosine(contender.embed(rows), reference)
    if cosine >= contender.gate_min_cosine:
        return cosine, None
    return cosine, f"{contender.setting}: min cosine {cosine:.6f} to the reference, below {contender.gate_min_cosine}"


def interleave(
    runs: Sequence[Callable[[], object]], repetitions: int, warmups: int, on_repetition: Callable[[int], None]
) -> Timings:
    """Times every run once a round, in another order each round; the first `warmups` rounds are kept apart.

    A changing order keeps what one contender leaves behind from always falling on the same neighbour.
    """
    dice = random.Random(_ORDER_SEED)
    order = list(range(len(runs)))
    timings = Timings(warmups=[[] for _ in runs], samples=[[] for _ in runs], load_average=[])
    for repetition in range(-warmups, repetitions):
        if repetition >= 0:
            on_repetition(repetition)
            timings.load_average.append(load_average())
        kept = timings.warmups if repetition < 0 else timings.samples
        dice.shuffle(order)
        for index in order:
            time.sleep(_PAUSE_S)
            kept[index].append(_time(runs[index]))
    return timings


def _time(run: Callable[[], object]) -> Sample:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Sample(wall_s=round(time.perf_counter() - wall, 6), cpu_s=round(time.process_time() - cpu, 6))
