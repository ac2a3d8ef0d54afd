"""One run: checkpoint, contenders, check, timing, profile → record."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .checkpoint import cached_checkpoint
from .contenders import Bench, Contender, Recipe
from .contenders.contender import Prepared, Rows, prepare_all
from .contenders.torch_reference import reference_vectors
from .environment import read_code_state, read_environment
from .measurement import Timings, check_vectors, interleave
from .products import layer_flops, layer_products
from .record import Entry, ProductGauge, Record, WorkloadFacts
from .samples import MIN_REPETITIONS
from .workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What to measure, and how often."""

    workload: Workload
    recipes: Sequence[Recipe]
    cache: Path
    threads: int
    repetitions: int = MIN_REPETITIONS
    warmups: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    contenders: list[Contender]
    cosines: list[float]
    absent: dict[str, str]


def run_benchmark(options: RunOptions, say: Callable[[str], None]) -> Record:
    """Measures every contender that can run; `say` takes lines of progress."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    workload, rows = options.workload, options.workload.rows()
    say(f"workload {workload.name}: {len(rows)} texts, {sum(map(len, rows))} tokens")
    checkpoint = cached_checkpoint(workload.shape, options.cache)
    bench = Bench(checkpoint=checkpoint, cache=options.cache, threads=options.threads, say=say)
    checked = _check(prepare_all(options.recipes, bench), checkpoint, rows, say)
    tokens = sum(map(len, rows))
    runs: list[Callable[[], object]] = [functools.partial(entry.embed, rows) for entry in checked.contenders]
    runs.append(layer_products(workload.shape, tokens, options.threads))
    timings = interleave(
        runs, options.repetitions, options.warmups, lambda done: say(f"repetition {done + 1} of {options.repetitions}")
    )
    say("profiling")
    return Record(
        started=started,
        code=read_code_state(),
        environment=read_environment(options.threads),
        workload=_facts(workload, rows),
        entries=_entries(checked, timings),
        absent=checked.absent,
        products=ProductGauge(flops=layer_flops(workload.shape, tokens), samples=tuple(timings.samples[-1])),
        profile={entry.program: entry.profile(rows) for entry in checked.contenders if entry.profile},
        load_average=tuple(timings.load_average),
    )


def _check(prepared: Prepared, checkpoint: Path, rows: Rows, say: Callable[[str], None]) -> _Checked:
    """The contenders whose vectors are right, and those that are left out for theirs."""
    say("comparing vectors with the reference")
    reference = reference_vectors(checkpoint, rows)
    checked = _Checked(contenders=[], cosines=[], absent=dict(prepared.absent))
    for contender in prepared.contenders:
        cosine, fault = check_vectors(contender, rows, reference)
        if fault is None:
            checked.contenders.append(contender)
            checked.cosines.append(cosine)
        else:
            say(f"{contender.program} is left out: {fault}")
            checked.absent[f"{contender.program}, {contender.setting}"] = fault
    return checked


def _entries(checked: _Checked, timings: Timings) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            program=contender.program,
            setting=contender.setting,
            versions=contender.versions,
            min_cosine=cosine,
            warmups=tuple(timings.warmups[index]),
            samples=tuple(timings.samples[index]),
        )
        for index, (contender, cosine) in enumerate(zip(checked.contenders, checked.cosines, strict=True))
    )


def _facts(workload: Workload, rows: Rows) -> WorkloadFacts:
    return WorkloadFacts(
        name=workload.name,
        seed=workload.seed,
        texts=len(rows),
        tokens=sum(map(len, rows)),
        shortest=min(map(len, rows)),
        longest=max(map(len, rows)),
        shape=dataclasses.asdict(workload.shape),
    )
