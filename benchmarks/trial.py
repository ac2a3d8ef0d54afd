"""Settings of a contender tried out, with as few passes as tell them apart."""

from __future__ import annotations

from dataclasses import dataclass, field

from .contenders.contender import CannotRun, Contender, Setting
from .record import Sample
from .rows import Rows

_WARM_TOKENS = 8
"""Of each row before the first pass: torch.compile takes half a minute for a new number of rows, wide or not."""
_LONG_S = 2.0
"""A pass that takes longer tells settings apart by itself; a shorter first one is cold and does not count."""
_REACH, _RUN_OFF = 1.3, 2
"""Of the settings whose long first pass is within this many times the best, so many go once more, the fastest first."""
_HOPELESS = 1.5
"""A setting of short passes whose second one takes this many times the best does not go a third time."""


@dataclass(slots=True, kw_only=True)
class Trial:
    """A setting and the passes that count."""

    setting: Setting
    samples: list[Sample]

    @property
    def wall_s(self) -> float:
        """Of the shortest pass."""
        return min(sample.wall_s for sample in self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """Of those settings that can run, and the reasons of the others."""

    entries: list[Trial] = field(default_factory=list)
    failures: list[CannotRun] = field(default_factory=list)


def try_settings(contender: Contender, rows: Rows, best_s: float, *, rivals: bool) -> Trials:
    """Every setting, beside a pass of `best_s` seconds that is known; without `rivals` one pass of the only one."""
    trials = Trials()
    for setting in contender.settings(len(rows)):
        try:
            setting.embed(_warming_rows(rows, setting))
            trials.entries.append(Trial(setting=setting, samples=setting.time(rows)))
        except CannotRun as exc:
            trials.failures.append(exc)
            contender.engine.rest()
    if rivals:
        # each has had one pass by now, so that those which are out of the race are known before any goes again
        _go_again(trials, rows, best_s)
    return trials


def _warming_rows(rows: Rows, setting: Setting) -> Rows:
    """Short ones that make a full batch for each copy and the smaller one that is left at the end, as `rows` do."""
    full = setting.batch_rows * setting.contender.copies
    return [row[-_WARM_TOKENS:] for row in rows[: full + len(rows) % setting.batch_rows]]


def _go_again(trials: Trials, rows: Rows, best_s: float) -> None:
    """The fastest first; one that fails is taken out."""
    run_off = _RUN_OFF
    for trial in sorted(trials.entries, key=lambda entry: entry.wall_s):
        best_s = min(best_s, trial.wall_s)
        try:
            if trial.wall_s < _LONG_S:
                trial.samples = _short_passes(trial.setting, rows, best_s)
            elif run_off and trial.wall_s <= _REACH * best_s:
                run_off -= 1
                trial.samples += trial.setting.time(rows)
        except CannotRun as exc:
            trials.failures.append(exc)
            trials.entries.remove(trial)
            trial.setting.contender.engine.rest()
        else:
            best_s = min(best_s, trial.wall_s)


def _short_passes(setting: Setting, rows: Rows, best_s: float) -> list[Sample]:
    """Two, or one where it tells enough."""
    samples = setting.time(rows)
    if samples[0].wall_s < min(_HOPELESS * best_s, _LONG_S):
        samples += setting.time(rows)
    return samples
