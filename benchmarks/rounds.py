"""Workloads in rounds: for each one check, scan, turns and profile of every contender."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from .contenders.contender import Bench, CannotRun, Engine, Prepared, Recipe, Setting, prepare_all
from .contenders.reference import reference_answers
from .measurement import Finalists, Timings, choose_finalists, interleave
from .model_shape import ModelShape
from .products import COPIED_BYTES, COPY, KINDS, gauge, gauged_layers, layer_flops, needed_flops
from .record import CopyGauge, Entry, ProductGauge, Round, Sample, WorkloadFacts
from .rows import Rows
from .workload import Workload

Turn = Callable[[], Sequence[Sample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOptions:
    """On which model, and how often."""

    shape: ModelShape
    repetitions: int
    warmups: int
    gauges: Sequence[str] = KINDS
    """Kinds of matrix products, and COPY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """Engines by kind, and why others did not start."""

    ready: dict[str, Engine] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def measure_rounds(
    workloads: Sequence[Workload], recipes: Sequence[Recipe], options: RoundOptions, bench: Bench
) -> Iterator[Round]:
    """Every contender that can run on every workload of its task, a workload at a time."""
    with ExitStack() as undo:
        own = dataclasses.replace(bench, undo=undo)
        prepared = {
            task: prepare_all([recipe for recipe in recipes if recipe.task is task], own)
            for task in dict.fromkeys(workload.task for workload in workloads)
        }
        gauges = _start_gauges(options, own)
        for workload in workloads:
            yield _measure(workload, options, prepared[workload.task], gauges, own)


def _measure(workload: Workload, options: RoundOptions, prepared: Prepared, engines: Gauges, bench: Bench) -> Round:
    rows = workload.rows(options.shape.vocabulary)
    tokens = sum(map(len, rows))
    bench.say(f"workload {workload.name}: {len(rows)} texts, {tokens} tokens")
    truth = reference_answers(bench, rows, workload.task)
    finalists = choose_finalists(prepared.contenders, rows, truth, bench.say)
    turns = [_turn(entry.setting, rows, workload) for entry in finalists.entries]
    gauges, missing = _gauge_turns(engines, rows, workload)
    timings = interleave(
        [*turns, *gauges.values()],
        options.repetitions,
        options.warmups,
        lambda done: bench.say(f"{workload.name}: repetition {done + 1} of {options.repetitions}"),
    )
    for engine in [*(entry.setting.contender.engine for entry in finalists.entries), *engines.ready.values()]:
        engine.rest()
    gauged = dict(zip(gauges, timings.samples[len(turns) :], strict=True))
    flops = gauged_layers(options.shape, bench) * layer_flops(options.shape, tokens)
    profiles = {entry.setting.contender.program: entry.setting.contender.profile for entry in finalists.entries}
    return Round(
        workload=_facts(workload, options.shape, rows),
        entries=_entries(finalists, timings),
        absent={**prepared.absent, **finalists.absent, **missing},
        products=tuple(
            ProductGauge(program=kind, flops=flops, samples=tuple(samples))
            for kind, samples in gauged.items()
            if kind != COPY
        ),
        copies=tuple(
            CopyGauge(program=kind, bytes=2 * COPIED_BYTES, samples=tuple(samples))
            for kind, samples in gauged.items()
            if kind == COPY
        ),
        profile={program: profile(rows) for program, profile in profiles.items() if profile},
        load_average=tuple(timings.load_average),
    )


def _turn(setting: Setting, rows: Rows, workload: Workload) -> Turn:
    return functools.partial(setting.time_alone if workload.one_at_a_time else setting.time, rows, workload.passes)


def _start_gauges(options: RoundOptions, bench: Bench) -> Gauges:
    gauges = Gauges()
    for kind in options.gauges:
        try:
            gauges.ready[kind] = gauge(kind, options.shape, bench)
        except CannotRun as exc:
            gauges.missing[_missing(kind)] = str(exc)
    return gauges


def _gauge_turns(gauges: Gauges, rows: Rows, workload: Workload) -> tuple[dict[str, Turn], dict[str, str]]:
    """A turn for each gauge, and why the others have none."""
    turns: dict[str, Turn] = {}
    missing = dict(gauges.missing)
    for kind, engine in gauges.ready.items():
        try:
            engine.embed(rows, len(rows))
        except CannotRun as exc:
            missing[_missing(kind)] = str(exc)
        else:
            turns[kind] = functools.partial(engine.time, rows, len(rows), workload.passes)
    return turns, missing


def _missing(kind: str) -> str:
    return kind if kind == COPY else f"matrix products, {kind}"


def _entries(finalists: Finalists, timings: Timings) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            program=entry.setting.contender.program,
            setting=entry.setting.name,
            versions=entry.setting.contender.engine.versions,
            arithmetic=entry.setting.contender.arithmetic,
            min_cosine=entry.truth.min_cosine,
            company_cosine=entry.company.min_cosine if entry.company else None,
            max_score_error=entry.truth.max_score_error,
            company_score_error=entry.company.max_score_error if entry.company else None,
            warmups=tuple(timings.warmups[index]),
            samples=tuple(timings.samples[index]),
            scan=entry.scan,
        )
        for index, entry in enumerate(finalists.entries)
    )


def _facts(workload: Workload, shape: ModelShape, rows: Rows) -> WorkloadFacts:
    return WorkloadFacts(
        name=workload.name,
        seed=workload.seed,
        texts=len(rows),
        tokens=sum(map(len, rows)),
        shortest=min(map(len, rows)),
        longest=max(map(len, rows)),
        shape=dataclasses.asdict(shape),
        passes=workload.passes,
        needed_flops=needed_flops(shape, rows),
        task=str(workload.task),
    )
