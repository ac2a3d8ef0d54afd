"""Checks contenders against the reference, finds each one's best setting, then times them in turns."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .contenders.contender import CannotRun, Contender, Setting
from .environment import load_average
from .record import Sample, Scan
from .rows import Rows, Vectors
from .trial import Trial, try_settings

_ORDER_SEED = 7
_PAUSE_S = 0.05
"""Between two contenders, so that spinning threads of the one do not run into the other's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Samples by contender, in the contenders' order."""

    warmups: list[list[Sample]]
    samples: list[list[Sample]]
    load_average: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of two answers to the same rows: of vectors the first, of scores the second."""

    min_cosine: float | None = None
    max_score_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A program at its best setting, its answers compared."""

    setting: Setting
    truth: Agreement
    """With the reference."""
    company: Agreement | None
    """Of each row alone with itself in the company of the workload; None for a single row."""
    scan: tuple[Scan, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalists:
    """One a program, and why the others are not there."""

    entries: list[Finalist] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def row_cosines(vectors: Vectors, others: Vectors) -> NDArray[np.float64]:
    """Cosine of each row [n, hidden] with the same row of `others`; NaN where a row holds one."""
    a, b = vectors.astype(np.float64), others.astype(np.float64)
    cosines: NDArray[np.float64] = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosines


def min_cosine(vectors: Vectors, reference: Vectors) -> float:
    """The smallest of `row_cosines`."""
    return float(row_cosines(vectors, reference).min())


def agreement(answers: Vectors, others: Vectors) -> Agreement:
    """Of vectors [n, hidden], or of scores [n, 1], with others."""
    if answers.shape[1] == 1:
        return Agreement(max_score_error=float(np.abs(answers - others).max()))
    return Agreement(min_cosine=min_cosine(answers, others))


def choose_finalists(
    contenders: Sequence[Contender], rows: Rows, reference: Vectors, say: Callable[[str], None]
) -> Finalists:
    """Each program at the fastest setting of a short scan out of those whose answers are right.

    Every engine rests afterwards.
    """
    finalists = Finalists()
    for program in dict.fromkeys(contender.program for contender in contenders):
        own = [contender for contender in contenders if contender.program == program]
        say(f"looking for the best setting of {program}")
        try:
            finalists.entries.append(_finalist(own, rows, reference, say))
        except CannotRun as exc:
            say(f"{program} is left out: {exc}")
            finalists.absent[program] = str(exc)
    return finalists


def by_speed(scan: Sequence[Scan]) -> list[int]:
    """Places of the settings, that with the shortest single pass first."""
    return sorted(range(len(scan)), key=lambda place: min(sample.wall_s for sample in scan[place].samples))


def _finalist(contenders: Sequence[Contender], rows: Rows, reference: Vectors, say: Callable[[str], None]) -> Finalist:
    tried: list[Trial] = []
    failures: list[CannotRun] = []
    rivals = sum(len(contender.settings(len(rows))) for contender in contenders) > 1
    for contender in contenders:
        best_s = min((trial.wall_s for trial in tried), default=math.inf)
        trials = try_settings(contender, rows, best_s, rivals=rivals)
        tried += trials.entries
        failures += trials.failures
        contender.engine.rest()
    if not tried:
        raise failures[0]
    scan = [Scan(setting=trial.setting.name, samples=tuple(trial.samples)) for trial in tried]
    for place in by_speed(scan):
        chosen = tried[place].setting
        try:
            return _compared(chosen, rows, reference, scan)
        except CannotRun as exc:
            failures.append(exc)
            scan[place] = dataclasses.replace(scan[place], rejected=str(exc))
            say(f"  passed over: {exc}")
        finally:
            chosen.contender.engine.rest()
    raise failures[-len(tried)]


def _compared(chosen: Setting, rows: Rows, reference: Vectors, scan: Sequence[Scan]) -> Finalist:
    answers = chosen.embed(rows)
    truth = agreement(answers, reference)
    _require_agreement(truth, chosen)
    company = None
    if len(rows) > 1:
        alone = np.concatenate([chosen.contender.engine.embed([row], 1) for row in rows])
        company = agreement(answers, alone)
    return Finalist(setting=chosen, truth=truth, company=company, scan=tuple(scan))


def _require_agreement(truth: Agreement, chosen: Setting) -> None:
    """Raises CannotRun outside of the contender's gate; a contender without a gate has to agree exactly."""
    cosine, error = truth.min_cosine, truth.max_score_error
    least, most = chosen.contender.gate_min_cosine, chosen.contender.gate_max_score_error
    if cosine is not None and not cosine >= (1.0 if least is None else least):
        raise CannotRun(f"{chosen.name}: min cosine {cosine:.6f} to the reference, below {least}")
    if error is not None and not error <= (most or 0.0):
        raise CannotRun(f"{chosen.name}: a score differs by {error:.6f} from the reference, more than {most}")


def interleave(
    runs: Sequence[Callable[[], Sequence[Sample]]],
    repetitions: int,
    warmups: int,
    on_repetition: Callable[[int], None],
) -> Timings:
    """Runs everything once a repetition, in another order each time; the first `warmups` rounds are kept apart.

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
            kept[index].extend(runs[index]())
    return timings
