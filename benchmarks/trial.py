"""Tries the settings of a contender with as few passes as are needed to rank them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .contenders.contender import Contender, ContenderUnavailableError, Setting
from .record import Sample
from .rows import Rows

_WARMUP_TOKENS = 8
"""Tokens of each row in the warm-up, which mainly compiles: torch.compile needs 30 s for a new number of rows."""
_LONG_S = 2.0
"""A pass longer than this ranks a setting on its own; a shorter first pass is cold and is discarded."""
_RUN_OFF_RATIO, _RUN_OFF_TRIALS = 1.3, 2
"""The fastest settings with long passes are repeated: at most this many, within this ratio to the best."""
_MAX_SLOWDOWN = 1.5
"""A setting with short passes whose second pass is slower than the best by this ratio gets no third pass."""
_PROBES = 2
"""Batch sizes at which other options than the first are tried before the rest: those nearest to the best so far."""
_PROMISING = 1.5
"""Options that take longer than the best by this ratio at all probes are not tried further."""
_FEWEST_ROWS = 12
"""A sample of a workload has at least this many rows, so that it has several batches of 8."""
TOO_SLOW = f"slower than {_PROMISING:g} times the best at the batch sizes nearest to the best one"


@dataclass(slots=True, kw_only=True)
class Trial:
    """A setting and the samples by which it is ranked."""

    setting: Setting
    samples: list[Sample]

    @property
    def wall_s(self) -> float:
        """Wall time of the shortest pass, in seconds."""
        return min(sample.wall_s for sample in self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResults:
    """Trials of the settings that can run, and the errors of the others."""

    entries: list[Trial] = field(default_factory=list)
    failures: list[ContenderUnavailableError] = field(default_factory=list)
    untried: dict[str, str] = field(default_factory=dict)
    """Setting → why it has no trial."""

    def fail(self, setting: Setting, error: ContenderUnavailableError) -> None:
        """Note that a setting cannot run, and release memory."""
        self.failures.append(error)
        self.untried[setting.name] = str(error)
        setting.contender.engine.release_memory()


def sample_rows(rows: Rows, most_tokens: int | None) -> Rows:
    """Return every k-th row in the order of lengths, with about `most_tokens` tokens in all, but `_FEWEST_ROWS` rows.

    Returns:
        The rows in their original order; all of them if they have few tokens or `most_tokens` is None.
    """
    tokens = sum(map(len, rows))
    if most_tokens is None or tokens <= most_tokens:
        return rows
    step = min(-(-tokens // most_tokens), max(1, len(rows) // _FEWEST_ROWS))
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    # from the middle of each group of `step`, so that the mean length is that of all rows
    return [rows[index] for index in sorted(by_length[step // 2 :: step])]


def try_settings(
    contender: Contender, rows: Rows, best: Trial | None, *, competing: bool, texts: int | None = None
) -> TrialResults:
    """Time the settings of a contender: all of the first one, and of others while they may be the fastest.

    Args:
        contender: the contender.
        rows: token ids of the workload, or of a sample of it.
        best: the fastest of the same program's settings tried before; None for the first contender.
        competing: whether the program has several settings; a single one needs only one pass.
        texts: rows of the workload, if `rows` is a sample.
    """
    results = TrialResults()
    settings = contender.settings(texts or len(rows), len(rows))
    if best is not None:
        settings.sort(key=lambda setting: abs(math.log2(setting.batch_rows / best.setting.batch_rows)))
    for position, setting in enumerate(settings):
        probes = best is not None and position < _PROBES
        if best is not None and position == _PROBES and _all_slow(results.entries, best):
            results.untried.update({each.name: TOO_SLOW for each in settings[position:]})
            break
        try:
            setting.embed(rows if contender.warms_up_fully else _warmup_rows(rows, setting))
            samples = setting.time(rows)
            if probes and samples[0].wall_s < _LONG_S:
                # the first pass is cold
                samples = setting.time(rows)
            results.entries.append(Trial(setting=setting, samples=samples))
        except ContenderUnavailableError as exc:
            results.fail(setting, exc)
    if competing:
        # only after one pass of each setting is it known which ones are worth repeating
        _repeat_trials(results, rows, math.inf if best is None else best.wall_s)
    return results


def is_promising(wall_s: float, best: Trial) -> bool:
    """Return whether a setting may become the fastest in another layout or with another batch size."""
    return wall_s <= _PROMISING * best.wall_s


def _all_slow(trials: Sequence[Trial], best: Trial) -> bool:
    return bool(trials) and not any(is_promising(trial.wall_s, best) for trial in trials)


def _warmup_rows(rows: Rows, setting: Setting) -> Rows:
    """Return short rows that form a full batch for each copy, and a last batch as small as that of `rows`."""
    full = setting.batch_rows * setting.contender.copies
    return [row[-_WARMUP_TOKENS:] for row in rows[: full + len(rows) % setting.batch_rows]]


def _repeat_trials(results: TrialResults, rows: Rows, best_s: float) -> None:
    """Repeat promising settings, fastest first, and remove those that fail."""
    run_off = _RUN_OFF_TRIALS
    for trial in sorted(results.entries, key=lambda entry: entry.wall_s):
        best_s = min(best_s, trial.wall_s)
        try:
            if trial.wall_s < _LONG_S:
                trial.samples = _short_passes(trial.setting, rows, best_s)
            elif run_off and trial.wall_s <= _RUN_OFF_RATIO * best_s:
                run_off -= 1
                trial.samples += trial.setting.time(rows)
        except ContenderUnavailableError as exc:
            results.entries.remove(trial)
            results.fail(trial.setting, exc)
        else:
            best_s = min(best_s, trial.wall_s)


def _short_passes(setting: Setting, rows: Rows, best_s: float) -> list[Sample]:
    """Time two passes, or only one if it is much slower than the best."""
    samples = setting.time(rows)
    if samples[0].wall_s < min(_MAX_SLOWDOWN * best_s, _LONG_S):
        samples += setting.time(rows)
    return samples
