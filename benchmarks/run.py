"""One run: whatever parts are asked for → record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from .checkpoint import cached_checkpoint
from .contenders import Bench, Recipe
from .environment import read_code_state, read_environment
from .growth import Grown, GrowthOptions, measure_growth
from .model_shape import ModelShape
from .quality import Quality, QualityOptions, measure_quality
from .record import Record, Round
from .rounds import RoundOptions, measure_rounds
from .samples import MIN_REPETITIONS
from .serving.measure import Served, ServingOptions, measure_serving
from .steps import now, pending_steps, resume, unreached, workload_step
from .workload import Workload

_Found = Round | Served | Grown | Quality


class Part(StrEnum):
    """What a run can measure, in this order: a run that is ended early has something of everything."""

    QUALITY = "quality"
    """The demo model's retrieval in every precision."""
    SERVING = "serving"
    """Ours behind a real Triton, under load."""
    PASSES = "passes"
    """Every contender on every workload, side by side."""
    GROWTH = "growth"
    """Cost against rows, length and model size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What to measure, and how often."""

    shape: ModelShape
    workloads: Sequence[Workload]
    served: Workload
    """The workload that the server is loaded with."""
    recipes: Sequence[Recipe]
    growing: Sequence[Recipe]
    """Whose growth is measured."""
    cache: Path
    threads: int
    parts: Sequence[Part] = tuple(Part)
    repetitions: int = MIN_REPETITIONS
    warmups: int = 1
    serving: ServingOptions = field(default_factory=ServingOptions)
    growth: GrowthOptions = field(default_factory=GrowthOptions)
    quality: QualityOptions = field(default_factory=QualityOptions)
    command: str = ""
    """What a person types to run it again."""


def run_benchmark(
    options: RunOptions,
    say: Callable[[str], None],
    keep: Callable[[Record], None] = lambda _: None,
    ended: Record | None = None,
) -> Record:
    """Measures whatever can run of `options`.

    `say` takes lines of progress, `keep` the record so far, whose `not_done` names what is still to come. Goes on where
    the run of `ended` came to its end; raises CannotResume where it cannot.
    """
    environment = read_environment(options.threads)
    given = options.serving.tokenizer
    tokenizer = given.facts if given else None
    record = Record(
        started=now(),
        command=options.command,
        code=read_code_state(),
        environment=environment,
        served_tokenizer=tokenizer,
    )
    pending = unreached(_steps(options))
    if ended is not None:
        record, pending = resume(ended, options.command, environment, tokenizer), pending_steps(ended)
        done = {what: why for what, why in ended.not_done.items() if what not in pending}
        record = dataclasses.replace(record, not_done=done)
    bench = Bench(
        checkpoint=cached_checkpoint(options.shape, options.cache),
        cache=options.cache,
        threads=options.threads,
        max_tokens=max(workload.longest for workload in (*options.workloads, options.served)),
        say=say,
        undo=ExitStack(),
    )
    with bench.undo:
        for what, found in _measure(options, tuple(pending), bench):
            record = _joined(record, found)
            del pending[what]
            keep(dataclasses.replace(record, not_done={**record.not_done, **pending}))
    return record


def _steps(options: RunOptions) -> list[str]:
    """Everything that the run is to measure, in order."""
    passes = [workload_step(workload.name) for workload in options.workloads]
    return [step for part in Part if part in options.parts for step in (passes if part is Part.PASSES else [str(part)])]


def _measure(options: RunOptions, steps: Sequence[str], bench: Bench) -> Iterator[tuple[str, _Found]]:
    """Every one of `steps` with what it found."""
    if Part.QUALITY in steps:
        yield Part.QUALITY, measure_quality(options.quality, bench)
    if Part.SERVING in steps:
        checkpoint = cached_checkpoint(options.shape, options.cache, options.serving.tokenizer)
        served = dataclasses.replace(bench, checkpoint=checkpoint)
        yield Part.SERVING, measure_serving(options.served, options.serving, served)
    how = RoundOptions(shape=options.shape, repetitions=options.repetitions, warmups=options.warmups)
    workloads = [workload for workload in options.workloads if workload_step(workload.name) in steps]
    for measured in measure_rounds(workloads, options.recipes, how, bench) if workloads else ():
        yield workload_step(measured.workload.name), measured
    if Part.GROWTH in steps:
        yield Part.GROWTH, measure_growth(options.growing, options.shape, options.growth, bench)


def _joined(record: Record, found: _Found) -> Record:
    """`record` with what one step found."""
    if isinstance(found, Round):
        return dataclasses.replace(record, rounds=(*record.rounds, found))
    joined = dataclasses.replace(record, not_done={**record.not_done, **found.not_done})
    if isinstance(found, Served):
        return dataclasses.replace(joined, loads=found.loads)
    if isinstance(found, Grown):
        return dataclasses.replace(joined, growth=found.growth)
    return dataclasses.replace(joined, quality=found.scores)
