"""Compares contenders on workloads: accuracy check, setting scan, interleaved timing and profile."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from .contenders.contender import Engine, PreparedContenders, Recipe, RunContext, Setting, failure_reason, prepare_all
from .contenders.reference import reference_outputs
from .draft import Draft, probe_name
from .environment import load_average
from .measurement import Timings, interleave, select_settings
from .model_shape import ModelShape
from .record import Comparison, Sample, WorkloadInfo
from .roofline import CPU_PROBES, layer_flops, needed_flops, probed_layers, start_probe
from .rows import Rows
from .trial import sample_rows
from .workload import Workload

TimedRun = Callable[[], Sequence[Sample]]
OnProgress = Callable[[Comparison, str], None]
"""Receives an incomplete comparison, and what it has reached as a noun phrase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonOptions:
    """Model, repetitions and probes of every comparison."""

    shape: ModelShape
    repetitions: int
    warmups: int
    probes: Sequence[str] = CPU_PROBES
    """Kinds of matmul probes, and COPY_PROBE."""
    profiles: bool = True
    """Whether to profile the contenders that can be profiled."""
    scan_tokens: int | None = None
    """About as many tokens of a workload rank the settings; None: all."""
    enough_s: float = math.inf
    """Time after which no further repetition of a workload starts, see `interleave`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Started probes by kind, and the reasons of those that did not start."""

    ready: dict[str, Engine] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)


def compare_contenders(
    workloads: Sequence[Workload], recipes: Sequence[Recipe], options: ComparisonOptions, context: RunContext
) -> Iterator[Comparison]:
    """Compare all contenders that can run on each workload of their task, one workload at a time."""
    with ExitStack() as cleanup:
        bench = Bench(recipes, options, dataclasses.replace(context, cleanup=cleanup))
        for workload in workloads:
            yield bench.compare(workload)


class Bench:
    """Contenders and probes of a run, each prepared when it is first needed and kept for later workloads."""

    def __init__(self, recipes: Sequence[Recipe], options: ComparisonOptions, context: RunContext) -> None:
        self._recipes = recipes
        self._options = options
        self._context = context
        self._prepared: dict[Recipe, PreparedContenders] = {}

    def compare(self, workload: Workload, on_progress: OnProgress = lambda _comparison, _reached: None) -> Comparison:
        """Compare all contenders that can run on one workload; one that fails is listed in `not_measured`.

        Args:
            workload: what they process.
            on_progress: called after each program's selection, each repetition and each profile.
        """
        rows = workload.rows(self._options.shape.vocabulary)
        tokens = sum(map(len, rows))
        self._context.log(f"workload {workload.name}: {len(rows)} texts, {tokens} tokens")
        draft = Draft(
            workload=_workload_info(workload, self._options.shape, rows),
            scanned_texts=len(sample_rows(rows, self._options.scan_tokens)),
            probe_flops=probed_layers(self._options.shape, self._context) * layer_flops(self._options.shape, tokens),
            load_average=load_average(),
        )
        self._select(draft, workload, rows, on_progress)
        self._time(draft, workload, rows, on_progress)
        if self._options.profiles:
            self._profile(draft, rows, on_progress)
        return draft.comparison()

    def _select(self, draft: Draft, workload: Workload, rows: Rows, on_progress: OnProgress) -> None:
        reference = reference_outputs(self._context, rows, workload.task)
        recipes = [recipe for recipe in self._recipes if recipe.task is workload.task]
        for done, recipe in enumerate(recipes, 1):
            if recipe not in self._prepared:
                self._prepared[recipe] = prepare_all([recipe], self._context)
            prepared = self._prepared[recipe]
            selection = select_settings(
                prepared.contenders, rows, reference, self._context.log, self._options.scan_tokens
            )
            draft.selected += selection.entries
            draft.not_measured |= {**prepared.not_measured, **selection.not_measured}
            on_progress(
                draft.comparison(), f"the scan of {done} of {len(recipes)} programs, whose times are one pass of it"
            )

    def _time(self, draft: Draft, workload: Workload, rows: Rows, on_progress: OnProgress) -> None:
        repetitions, log = self._options.repetitions, self._context.log
        probes = self._probe_runs(draft, workload, rows)
        draft.probes = list(probes)
        runs = {chosen.program: _timed_run(chosen.setting, rows, workload) for chosen in draft.selected}
        runs |= {probe_name(kind): run for kind, run in probes.items()}

        def save(timings: Timings) -> None:
            draft.timings = timings
            on_progress(draft.comparison(), f"{len(timings.load_average)} of {repetitions} repetitions")

        draft.timings = interleave(
            [_guarded(name, run, draft.not_measured, log) for name, run in runs.items()],
            repetitions,
            self._options.warmups,
            lambda done: log(f"{workload.name}: repetition {done + 1} of {repetitions}"),
            save,
            self._options.enough_s,
        )
        for engine in (*(chosen.setting.contender.engine for chosen in draft.selected), *self._probes.ready.values()):
            engine.release_memory()

    def _profile(self, draft: Draft, rows: Rows, on_progress: OnProgress) -> None:
        profiles = {chosen.program: chosen.setting.contender.profile for chosen in draft.selected}
        for program, profile in profiles.items():
            if profile is None or program in draft.not_measured:
                continue
            self._context.log(f"profiling {program}")
            try:
                draft.profile_us[program] = dict(profile(rows))
            except Exception as exc:  # noqa: BLE001 - no profile may end the run
                reason = failure_reason(exc, self._context.log)
                self._context.log(f"{program} is not profiled: {reason}")
                draft.not_measured[f"profile of {program}"] = reason
            on_progress(draft.comparison(), f"all repetitions and the profile of {program}")

    @functools.cached_property
    def _probes(self) -> Probes:
        probes = Probes()
        for kind in self._options.probes:
            try:
                probes.ready[kind] = start_probe(kind, self._options.shape, self._context)
            except Exception as exc:  # noqa: BLE001 - no probe may end the run
                probes.not_measured[probe_name(kind)] = failure_reason(exc, self._context.log)
        return probes

    def _probe_runs(self, draft: Draft, workload: Workload, rows: Rows) -> dict[str, TimedRun]:
        """Return a timed run for each probe that can run, and note the reasons of the others in `draft`."""
        runs: dict[str, TimedRun] = {}
        draft.not_measured |= self._probes.not_measured
        for kind, engine in self._probes.ready.items():
            try:
                engine.embed(rows, len(rows))
            except Exception as exc:  # noqa: BLE001 - no probe may end the run
                draft.not_measured[probe_name(kind)] = failure_reason(exc, self._context.log)
            else:
                runs[kind] = functools.partial(engine.time, rows, len(rows), workload.passes)
        return runs


def _timed_run(setting: Setting, rows: Rows, workload: Workload) -> TimedRun:
    time = setting.time_and_release if workload.release_between_runs else setting.time
    return functools.partial(time, rows, workload.passes)


def _guarded(name: str, run: TimedRun, not_measured: dict[str, str], log: Callable[[str], None]) -> TimedRun:
    """Return a run that notes a failure in `not_measured` and then does nothing."""

    def guarded() -> Sequence[Sample]:
        if name in not_measured:
            return []
        try:
            return run()
        except Exception as exc:  # noqa: BLE001 - no program may end the run
            not_measured[name] = failure_reason(exc, log)
            log(f"{name} failed: {not_measured[name]}")
            return []

    return guarded


def _workload_info(workload: Workload, shape: ModelShape, rows: Rows) -> WorkloadInfo:
    return WorkloadInfo(
        name=workload.name,
        seed=workload.seed,
        texts=len(rows),
        tokens=sum(map(len, rows)),
        shortest=min(map(len, rows)),
        longest=max(map(len, rows)),
        shape=dataclasses.asdict(shape),
        passes=workload.passes,
        needed_flops=needed_flops(shape, rows),
        task=workload.task,
    )
