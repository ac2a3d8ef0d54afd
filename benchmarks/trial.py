"""Tries the settings of a contender with as few passes as are needed to rank them."""

from __future__ import annotations

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


def try_settings(contender: Contender, rows: Rows, best_s: float, *, competing: bool) -> TrialResults:
    """Time every setting of a contender.

    Args:
        contender: the contender.
        rows: the workload's token ids.
        best_s: shortest pass of the same program's settings tried before, in seconds.
        competing: whether the program has several settings; a single one needs only one pass.
    """
    results = TrialResults()
    for setting in contender.settings(len(rows)):
        try:
            setting.embed(rows if contender.warms_up_fully else _warmup_rows(rows, setting))
            results.entries.append(Trial(setting=setting, samples=setting.time(rows)))
        except ContenderUnavailableError as exc:
            results.failures.append(exc)
            contender.engine.release_memory()
    if competing:
        # only after one pass of each setting is it known which ones are worth repeating
        _repeat_trials(results, rows, best_s)
    return results


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
            results.failures.append(exc)
            results.entries.remove(trial)
            trial.setting.contender.engine.release_memory()
        else:
            best_s = min(best_s, trial.wall_s)


def _short_passes(setting: Setting, rows: Rows, best_s: float) -> list[Sample]:
    """Time two passes, or only one if it is much slower than the best."""
    samples = setting.time(rows)
    if samples[0].wall_s < min(_MAX_SLOWDOWN * best_s, _LONG_S):
        samples += setting.time(rows)
    return samples
