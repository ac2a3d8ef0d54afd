"""Compares contenders on workloads: accuracy check, setting scan, interleaved timing and profile."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from .contenders.contender import (
    ContenderUnavailableError,
    Engine,
    PreparedContenders,
    Recipe,
    RunContext,
    Setting,
    prepare_all,
)
from .contenders.reference import reference_outputs
from .measurement import Selection, Timings, interleave, select_settings
from .model_shape import ModelShape
from .record import Comparison, CopyProbe, Entry, MatmulProbe, Sample, WorkloadInfo
from .roofline import COPIED_BYTES, COPY_PROBE, CPU_PROBES, layer_flops, needed_flops, probed_layers, start_probe
from .rows import Rows
from .workload import Workload

TimedRun = Callable[[], Sequence[Sample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonOptions:
    """Model, repetitions and probes of every comparison."""

    shape: ModelShape
    repetitions: int
    warmups: int
    probes: Sequence[str] = CPU_PROBES
    """Kinds of matmul probes, and COPY_PROBE."""


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
        own = dataclasses.replace(context, cleanup=cleanup)
        prepared = {
            task: prepare_all([recipe for recipe in recipes if recipe.task is task], own)
            for task in dict.fromkeys(workload.task for workload in workloads)
        }
        probes = _start_probes(options, own)
        for workload in workloads:
            yield _compare(workload, options, prepared[workload.task], probes, own)


def _compare(
    workload: Workload, options: ComparisonOptions, prepared: PreparedContenders, probes: Probes, context: RunContext
) -> Comparison:
    rows = workload.rows(options.shape.vocabulary)
    tokens = sum(map(len, rows))
    context.log(f"workload {workload.name}: {len(rows)} texts, {tokens} tokens")
    reference = reference_outputs(context, rows, workload.task)
    selection = select_settings(prepared.contenders, rows, reference, context.log)
    runs = [_timed_run(entry.setting, rows, workload) for entry in selection.entries]
    probe_runs, missing = _probe_runs(probes, rows, workload)
    timings = interleave(
        [*runs, *probe_runs.values()],
        options.repetitions,
        options.warmups,
        lambda done: context.log(f"{workload.name}: repetition {done + 1} of {options.repetitions}"),
    )
    for engine in [*(entry.setting.contender.engine for entry in selection.entries), *probes.ready.values()]:
        engine.release_memory()
    probed = dict(zip(probe_runs, timings.samples[len(runs) :], strict=True))
    flops = probed_layers(options.shape, context) * layer_flops(options.shape, tokens)
    profiles = {entry.setting.contender.program: entry.setting.contender.profile for entry in selection.entries}
    return Comparison(
        workload=_workload_info(workload, options.shape, rows),
        entries=_entries(selection, timings),
        not_measured={**prepared.not_measured, **selection.not_measured, **missing},
        matmuls=tuple(
            MatmulProbe(program=kind, flops=flops, samples=tuple(samples))
            for kind, samples in probed.items()
            if kind != COPY_PROBE
        ),
        memory_copies=tuple(
            CopyProbe(program=kind, bytes=2 * COPIED_BYTES, samples=tuple(samples))
            for kind, samples in probed.items()
            if kind == COPY_PROBE
        ),
        profile_us={program: profile(rows) for program, profile in profiles.items() if profile},
        load_average=tuple(timings.load_average),
    )


def _timed_run(setting: Setting, rows: Rows, workload: Workload) -> TimedRun:
    time = setting.time_and_release if workload.release_between_runs else setting.time
    return functools.partial(time, rows, workload.passes)


def _start_probes(options: ComparisonOptions, context: RunContext) -> Probes:
    probes = Probes()
    for kind in options.probes:
        try:
            probes.ready[kind] = start_probe(kind, options.shape, context)
        except ContenderUnavailableError as exc:
            probes.not_measured[_probe_name(kind)] = str(exc)
    return probes


def _probe_runs(probes: Probes, rows: Rows, workload: Workload) -> tuple[dict[str, TimedRun], dict[str, str]]:
    """Return a timed run for each probe that can run, and the reasons of the others."""
    runs: dict[str, TimedRun] = {}
    missing = dict(probes.not_measured)
    for kind, engine in probes.ready.items():
        try:
            engine.embed(rows, len(rows))
        except ContenderUnavailableError as exc:
            missing[_probe_name(kind)] = str(exc)
        else:
            runs[kind] = functools.partial(engine.time, rows, len(rows), workload.passes)
    return runs, missing


def _probe_name(kind: str) -> str:
    return kind if kind == COPY_PROBE else f"matmul probe {kind}"


def _entries(selection: Selection, timings: Timings) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            program=entry.setting.contender.program,
            setting=entry.setting.name,
            versions=entry.setting.contender.engine.versions,
            arithmetic=entry.setting.contender.arithmetic,
            min_cosine=entry.reference_parity.min_cosine,
            batched_cosine=entry.batched_parity.min_cosine if entry.batched_parity else None,
            max_score_error=entry.reference_parity.max_score_error,
            batched_score_error=entry.batched_parity.max_score_error if entry.batched_parity else None,
            warmups=tuple(timings.warmups[index]),
            samples=tuple(timings.samples[index]),
            scan=entry.scan,
        )
        for index, entry in enumerate(selection.entries)
    )


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
