"""Workloads in rounds: for each one check, scan, turns and profile of every contender."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .contenders.contender import Bench, CannotRun, Prepared, Recipe, Setting, prepare_all
from .contenders.reference import reference_answers
from .measurement import Finalists, Timings, choose_finalists, interleave
from .model_shape import ModelShape
from .products import KINDS, gauge, layer_flops, needed_flops
from .record import Entry, ProductGauge, Round, Sample, WorkloadFacts
from .rows import Rows
from .workload import Workload

Turn = Callable[[], Sequence[Sample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOptions:
    """On which model, and how often."""

    shape: ModelShape
    repetitions: int
    warmups: int


def measure_rounds(
    workloads: Sequence[Workload], recipes: Sequence[Recipe], options: RoundOptions, bench: Bench
) -> tuple[Round, ...]:
    """Every contender that can run on every workload of its task."""
    prepared = {
        task: prepare_all([recipe for recipe in recipes if recipe.task is task], bench)
        for task in dict.fromkeys(workload.task for workload in workloads)
    }
    return tuple(_measure(workload, options, prepared[workload.task], bench) for workload in workloads)


def _measure(workload: Workload, options: RoundOptions, prepared: Prepared, bench: Bench) -> Round:
    rows = workload.rows(options.shape.vocabulary)
    tokens = sum(map(len, rows))
    bench.say(f"workload {workload.name}: {len(rows)} texts, {tokens} tokens")
    truth = reference_answers(bench, rows, workload.task)
    finalists = choose_finalists(prepared.contenders, rows, truth, bench.say)
    turns = [_turn(entry.setting, rows, workload) for entry in finalists.entries]
    gauges, missing = _gauges(options.shape, rows, workload, bench)
    timings = interleave(
        [*turns, *gauges.values()],
        options.repetitions,
        options.warmups,
        lambda done: bench.say(f"{workload.name}: repetition {done + 1} of {options.repetitions}"),
    )
    for entry in finalists.entries:
        entry.setting.contender.engine.rest()
    profiles = {entry.setting.contender.program: entry.setting.contender.profile for entry in finalists.entries}
    return Round(
        workload=_facts(workload, options.shape, rows),
        entries=_entries(finalists, timings),
        absent={**prepared.absent, **finalists.absent, **missing},
        products=tuple(
            ProductGauge(program=kind, flops=layer_flops(options.shape, tokens), samples=tuple(samples))
            for kind, samples in zip(gauges, timings.samples[len(turns) :], strict=True)
        ),
        profile={program: profile(rows) for program, profile in profiles.items() if profile},
        load_average=tuple(timings.load_average),
    )


def _turn(setting: Setting, rows: Rows, workload: Workload) -> Turn:
    return functools.partial(setting.time_alone if workload.one_at_a_time else setting.time, rows, workload.passes)


def _gauges(shape: ModelShape, rows: Rows, workload: Workload, bench: Bench) -> tuple[dict[str, Turn], dict[str, str]]:
    """A turn for each kind of matrix product, and why the others have none."""
    turns: dict[str, Turn] = {}
    missing: dict[str, str] = {}
    for kind in KINDS:
        try:
            engine = gauge(kind, shape, bench)
            engine.time(rows, len(rows), 1)
        except CannotRun as exc:
            missing[f"matrix products, {kind}"] = str(exc)
        else:
            turns[kind] = functools.partial(engine.time, rows, len(rows), workload.passes)
    return turns, missing


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
