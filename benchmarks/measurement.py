"""Checks contenders against the reference, selects each one's fastest setting, and times them interleaved."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from qwen3_triton.export.verification.parity import cosines

from .contenders.contender import Contender, ContenderUnavailableError, Setting, failure_reason
from .environment import load_average
from .record import Sample, Scan
from .rows import Rows, Vectors
from .trial import Trial, try_settings

_ORDER_SEED = 7
_PAUSE_S = 0.05
"""Pause between two contenders, so that spinning threads of one do not slow down the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Samples of each run, in the order in which the runs were given."""

    warmups: list[list[Sample]]
    samples: list[list[Sample]]
    load_average: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How closely two outputs for the same rows agree."""

    min_cosine: float | None = None
    """Smallest cosine; None for scores."""
    max_score_error: float | None = None
    """Largest absolute difference; None for embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedSetting:
    """A program's fastest correct setting."""

    setting: Setting
    reference_parity: Parity
    """Against the reference."""
    batched_parity: Parity | None
    """Of each row alone against the same row in its batch; None for a single row."""
    scan: tuple[Scan, ...]

    @property
    def program(self) -> str:
        """Name of the program in records."""
        return self.setting.contender.program


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The selected setting of each program, and the reasons why other programs have none."""

    entries: list[SelectedSetting] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)


def compare_outputs(outputs: Vectors, others: Vectors) -> Parity:
    """Compare embeddings [n, hidden] by their cosines, or scores [n, 1] by their differences."""
    if outputs.shape[1] == 1:
        return Parity(max_score_error=float(np.abs(outputs - others).max()))
    return Parity(min_cosine=float(cosines(outputs, others).min()))


def select_settings(
    contenders: Sequence[Contender], rows: Rows, reference: Vectors, log: Callable[[str], None]
) -> Selection:
    """Select the fastest setting of each program whose outputs pass the contender's accuracy limits.

    The memory of every engine is released afterwards.

    Args:
        contenders: all contenders of all programs.
        rows: the workload's token ids.
        reference: outputs of the reference for `rows`.
        log: receives lines of progress.
    """
    selection = Selection()
    for program in dict.fromkeys(contender.program for contender in contenders):
        own = [contender for contender in contenders if contender.program == program]
        log(f"selecting the fastest setting of {program}")
        try:
            selection.entries.append(_select_setting(own, rows, reference, log))
        except Exception as exc:  # noqa: BLE001 - no program may end the run
            reason = failure_reason(exc, log)
            log(f"{program} is not measured: {reason}")
            selection.not_measured[program] = reason
    return selection


def rank_by_speed(scan: Sequence[Scan]) -> list[int]:
    """Return the indices of the settings, sorted by their shortest pass."""
    return sorted(range(len(scan)), key=lambda index: min(sample.wall_s for sample in scan[index].samples))


def _select_setting(
    contenders: Sequence[Contender], rows: Rows, reference: Vectors, log: Callable[[str], None]
) -> SelectedSetting:
    tried: list[Trial] = []
    failures: list[ContenderUnavailableError] = []
    competing = sum(len(contender.settings(len(rows))) for contender in contenders) > 1
    for contender in contenders:
        best_s = min((trial.wall_s for trial in tried), default=math.inf)
        trials = try_settings(contender, rows, best_s, competing=competing)
        tried += trials.entries
        failures += trials.failures
        contender.engine.release_memory()
    if not tried:
        raise failures[0]
    scan = [Scan(setting=trial.setting.name, samples=tuple(trial.samples)) for trial in tried]
    for index in rank_by_speed(scan):
        setting = tried[index].setting
        try:
            return _check_setting(setting, rows, reference, scan)
        except ContenderUnavailableError as exc:
            failures.append(exc)
            scan[index] = dataclasses.replace(scan[index], rejected=str(exc))
            log(f"  rejected: {exc}")
        finally:
            setting.contender.engine.release_memory()
    raise failures[-len(tried)]


def _check_setting(setting: Setting, rows: Rows, reference: Vectors, scan: Sequence[Scan]) -> SelectedSetting:
    outputs = setting.embed(rows)
    reference_parity = compare_outputs(outputs, reference)
    _require_parity(reference_parity, setting)
    batched_parity = None
    if len(rows) > 1:
        alone = np.concatenate([setting.contender.engine.embed([row], 1) for row in rows])
        batched_parity = compare_outputs(outputs, alone)
    return SelectedSetting(
        setting=setting, reference_parity=reference_parity, batched_parity=batched_parity, scan=tuple(scan)
    )


def _require_parity(parity: Parity, setting: Setting) -> None:
    """Raise ContenderUnavailableError outside the contender's limits; without a limit, outputs must be identical."""
    cosine, error = parity.min_cosine, parity.max_score_error
    least, most = setting.contender.gate_min_cosine, setting.contender.gate_max_score_error
    # a comparison with NaN is false, which must fail
    if cosine is not None and not cosine >= (1.0 if least is None else least):
        raise ContenderUnavailableError(
            f"{setting.name}: min cosine {cosine:.6f} to the reference is below the limit of {least}"
        )
    if error is not None and not error <= (most or 0.0):
        raise ContenderUnavailableError(
            f"{setting.name}: max score error {error:.6f} against the reference is above the limit of {most}"
        )


def interleave(
    runs: Sequence[Callable[[], Sequence[Sample]]],
    repetitions: int,
    warmups: int,
    on_repetition: Callable[[int], None],
    on_samples: Callable[[Timings], None] = lambda _: None,
) -> Timings:
    """Execute all runs once per repetition, in an order that changes every time.

    With a fixed order, the after-effects of one contender would always hit the same successor.

    Args:
        runs: each returns the samples of one repetition.
        repetitions: repetitions that count.
        warmups: repetitions before those, whose samples are stored separately.
        on_repetition: called with the index of each repetition that counts.
        on_samples: called with all samples so far after each repetition that counts.
    """
    rng = random.Random(_ORDER_SEED)
    order = list(range(len(runs)))
    timings = Timings(warmups=[[] for _ in runs], samples=[[] for _ in runs], load_average=[])
    for repetition in range(-warmups, repetitions):
        if repetition >= 0:
            on_repetition(repetition)
            timings.load_average.append(load_average())
        samples = timings.warmups if repetition < 0 else timings.samples
        rng.shuffle(order)
        for index in order:
            time.sleep(_PAUSE_S)
            samples[index].extend(runs[index]())
        if repetition >= 0:
            on_samples(timings)
    return timings
