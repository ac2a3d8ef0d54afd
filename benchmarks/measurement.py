"""Checks contenders against the reference, selects each one's fastest setting, and times them interleaved."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qwen3_triton.export.verification.parity import cosines

from .batches import MIN_COMMON_PREFIX, common_prefix
from .contenders.contender import Contender, ContenderUnavailableError, Setting, failure_reason
from .environment import load_average
from .record import Sample, Scan
from .rows import Rows, Vectors
from .samples import FEWEST_REPETITIONS
from .trial import Trial, is_promising, sample_rows, try_settings

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
    untried: Mapping[str, str] = field(default_factory=dict)
    """Setting, or options of a contender → why it was not tried."""

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
    contenders: Sequence[Contender],
    rows: Rows,
    reference: Vectors,
    log: Callable[[str], None],
    scan_tokens: int | None = None,
) -> Selection:
    """Select the fastest setting of each program whose outputs pass the contender's accuracy limits.

    The memory of every engine is released afterwards.

    Args:
        contenders: all contenders of all programs.
        rows: the workload's token ids.
        reference: outputs of the reference for `rows`.
        log: receives lines of progress.
        scan_tokens: about as many tokens of `rows` rank the settings; None: all.
    """
    selection = Selection()
    sample = sample_rows(rows, scan_tokens)
    for program in dict.fromkeys(contender.program for contender in contenders):
        own = [contender for contender in contenders if contender.program == program]
        log(f"selecting the fastest setting of {program}")
        try:
            selection.entries.append(_select_setting(own, rows, sample, reference, log))
        except Exception as exc:  # noqa: BLE001 - no program may end the run
            reason = failure_reason(exc, log)
            log(f"{program} is not measured: {reason}")
            selection.not_measured[program] = reason
    return selection


def rank_by_speed(scan: Sequence[Scan]) -> list[int]:
    """Return the indices of the settings, sorted by their shortest pass."""
    return sorted(range(len(scan)), key=lambda index: min(sample.wall_s for sample in scan[index].samples))


def _select_setting(
    contenders: Sequence[Contender], rows: Rows, sample: Rows, reference: Vectors, log: Callable[[str], None]
) -> SelectedSetting:
    tried: list[Trial] = []
    failures: list[ContenderUnavailableError] = []
    untried: dict[str, str] = {}
    competing = sum(len(contender.settings(len(rows), len(sample))) for contender in contenders) > 1
    # refinements last, when it is known which options are worth refining
    for contender in sorted(contenders, key=lambda each: each.refines is not None):
        if not contender.settings(len(rows), len(sample)):
            continue
        try:
            reason = _reason_to_skip(contender, rows, tried)
            if reason is None:
                _check_one_row(contender, rows, reference)
        except ContenderUnavailableError as exc:
            failures.append(exc)
            reason = str(exc)
        if reason is None:
            trials = try_settings(contender, sample, _fastest(tried), competing=competing, texts=len(rows))
            tried += trials.entries
            failures += trials.failures
            untried |= trials.untried
        else:
            untried[contender.options or contender.program] = reason
        contender.engine.release_memory()
    if not tried:
        raise failures[0]
    scan = [Scan(setting=trial.setting.name, samples=tuple(trial.samples)) for trial in tried]
    for index in rank_by_speed(scan):
        setting = tried[index].setting
        try:
            return dataclasses.replace(_check_setting(setting, rows, reference, scan), untried=untried)
        except ContenderUnavailableError as exc:
            failures.append(exc)
            scan[index] = dataclasses.replace(scan[index], rejected=str(exc))
            log(f"  rejected: {exc}")
        finally:
            setting.contender.engine.release_memory()
    raise failures[-len(tried)]


def _fastest(tried: Sequence[Trial]) -> Trial | None:
    return min(tried, key=lambda trial: trial.wall_s, default=None)


def _reason_to_skip(contender: Contender, rows: Rows, tried: Sequence[Trial]) -> str | None:
    """Return why a contender cannot be faster than what was tried; None if it must be tried."""
    if contender.needs_common_prefix and common_prefix(rows) < MIN_COMMON_PREFIX:
        return "the texts have no common prefix"
    best = _fastest(tried)
    if contender.refines is None or best is None:
        return None
    refined = [trial.wall_s for trial in tried if trial.setting.contender.options == contender.refines]
    if not refined:
        return "it cannot run in the default layout"
    return None if is_promising(min(refined), best) else "too slow in the default layout"


def _check_one_row(contender: Contender, rows: Rows, reference: Vectors) -> None:
    """Check the shortest row alone, so that no time is spent on a precision outside the limits.

    Raises:
        ContenderUnavailableError: if it is outside the limits.
    """
    index = min(range(len(rows)), key=lambda each: len(rows[each]))
    parity = compare_outputs(contender.engine.embed([rows[index]], 1), reference[[index]])
    _require_parity(parity, contender, ", ".join(part for part in (contender.options, "one row alone") if part))


def _check_setting(setting: Setting, rows: Rows, reference: Vectors, scan: Sequence[Scan]) -> SelectedSetting:
    outputs = setting.embed(rows)
    reference_parity = compare_outputs(outputs, reference)
    _require_parity(reference_parity, setting.contender, setting.name)
    batched_parity = None
    if len(rows) > 1:
        alone = np.concatenate([setting.contender.engine.embed([row], 1) for row in rows])
        batched_parity = compare_outputs(outputs, alone)
    return SelectedSetting(
        setting=setting, reference_parity=reference_parity, batched_parity=batched_parity, scan=tuple(scan)
    )


def _require_parity(parity: Parity, contender: Contender, name: str) -> None:
    """Raise ContenderUnavailableError outside the contender's limits; without a limit, outputs must be identical."""
    cosine, error = parity.min_cosine, parity.max_score_error
    least, most = contender.gate_min_cosine, contender.gate_max_score_error
    # a comparison with NaN is false, which must fail
    if cosine is not None and not cosine >= (1.0 if least is None else least):
        raise ContenderUnavailableError(
            f"{name}: min cosine {cosine:.6f} to the reference is below the limit of {least}"
        )
    if error is not None and not error <= (most or 0.0):
        raise ContenderUnavailableError(
            f"{name}: max score error {error:.6f} against the reference is above the limit of {most}"
        )


def interleave(
    runs: Sequence[Callable[[], Sequence[Sample]]],
    repetitions: int,
    warmups: int,
    on_repetition: Callable[[int], None],
    on_samples: Callable[[Timings], None] = lambda _: None,
    enough_s: float = math.inf,
) -> Timings:
    """Execute all runs once per repetition, in an order that changes every time.

    With a fixed order, the after-effects of one contender would always hit the same successor.

    Args:
        runs: each returns the samples of one repetition.
        repetitions: repetitions that count.
        warmups: repetitions before those, whose samples are stored separately.
        on_repetition: called with the index of each repetition that counts.
        on_samples: called with all samples so far after each repetition that counts.
        enough_s: no repetition starts later than this after the first that counts, except the first
            `FEWEST_REPETITIONS`.
    """
    rng = random.Random(_ORDER_SEED)
    order = list(range(len(runs)))
    timings = Timings(warmups=[[] for _ in runs], samples=[[] for _ in runs], load_average=[])
    started = math.inf
    for repetition in range(-warmups, repetitions):
        if repetition >= FEWEST_REPETITIONS and time.perf_counter() - started > enough_s:
            break
        if repetition >= 0:
            started = min(started, time.perf_counter())
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
