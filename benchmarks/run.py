"""One run: checkpoint, contenders, then for each workload check, scan, timing and profile → record."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .checkpoint import cached_checkpoint
from .contenders import Bench, Recipe
from .contenders.contender import Prepared, prepare_all
from .contenders.transformers_model import reference_vectors
from .environment import read_code_state, read_environment
from .measurement import Finalists, Timings, choose_finalists, interleave, time_here
from .model_shape import ModelShape
from .products import layer_flops, layer_products
from .record import Entry, ProductGauge, Record, Round, Sample, WorkloadFacts
from .rows import Rows
from .samples import MIN_REPETITIONS
from .workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What to measure, and how often."""

    shape: ModelShape
    workloads: Sequence[Workload]
    recipes: Sequence[Recipe]
    cache: Path
    threads: int
    repetitions: int = MIN_REPETITIONS
    warmups: int = 1


def run_benchmark(options: RunOptions, say: Callable[[str], None]) -> Record:
    """Measures every contender that can run on every workload; `say` takes lines of progress."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    checkpoint = cached_checkpoint(options.shape, options.cache)
    with ExitStack() as undo:
        bench = Bench(
            checkpoint=checkpoint,
            cache=options.cache,
            threads=options.threads,
            max_tokens=max(workload.longest for workload in options.workloads),
            say=say,
            undo=undo,
        )
        prepared = prepare_all(options.recipes, bench)
        rounds = tuple(_measure(workload, options, prepared, bench) for workload in options.workloads)
    return Record(
        started=started,
        code=read_code_state(),
        environment=read_environment(options.threads),
        rounds=rounds,
    )


def _measure(workload: Workload, options: RunOptions, prepared: Prepared, bench: Bench) -> Round:
    rows = workload.rows(options.shape.vocabulary)
    tokens = sum(map(len, rows))
    bench.say(f"workload {workload.name}: {len(rows)} texts, {tokens} tokens")
    reference = reference_vectors(bench, rows)
    finalists = choose_finalists(prepared.contenders, rows, reference, bench.say)
    runs: list[Callable[[], Sequence[Sample]]] = [
        functools.partial(entry.setting.time, rows, workload.passes) for entry in finalists.entries
    ]
    runs.append(functools.partial(time_here, layer_products(options.shape, tokens, options.threads), workload.passes))
    timings = interleave(
        runs,
        options.repetitions,
        options.warmups,
        lambda done: bench.say(f"{workload.name}: repetition {done + 1} of {options.repetitions}"),
    )
    profiles = {entry.setting.contender.program: entry.setting.contender.profile for entry in finalists.entries}
    return Round(
        workload=_facts(workload, options.shape, rows),
        entries=_entries(finalists, timings),
        absent={**prepared.absent, **finalists.absent},
        products=ProductGauge(flops=layer_flops(options.shape, tokens), samples=tuple(timings.samples[-1])),
        profile={program: profile(rows) for program, profile in profiles.items() if profile},
        load_average=tuple(timings.load_average),
    )


def _entries(finalists: Finalists, timings: Timings) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            program=entry.setting.contender.program,
            setting=entry.setting.name,
            versions=entry.setting.contender.engine.versions,
            min_cosine=entry.min_cosine,
            company_cosine=entry.company_cosine,
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
    )
