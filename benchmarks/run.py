"""One run: whatever parts are asked for → record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
from .steps import unreached, workload_step
from .workload import Workload

_Found = Round | Served | Grown | Quality


class Part(StrEnum):
    """What a run can measure."""

    PASSES = "passes"
    """Every contender on every workload, side by side."""
    SERVING = "serving"
    """Ours behind a real Triton, under load."""
    GROWTH = "growth"
    """Cost against rows, length and model size."""
    QUALITY = "quality"
    """The demo model's retrieval in every precision."""


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
    options: RunOptions, say: Callable[[str], None], keep: Callable[[Record], None] = lambda _: None
) -> Record:
    """Measures whatever can run of `options`.

    `say` takes lines of progress, `keep` the record so far, whose `not_done` names what is still to come.
    """
    bench = Bench(
        checkpoint=cached_checkpoint(options.shape, options.cache),
        cache=options.cache,
        threads=options.threads,
        max_tokens=max(workload.longest for workload in (*options.workloads, options.served)),
        say=say,
        undo=ExitStack(),
    )
    record = Record(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        code=read_code_state(),
        environment=read_environment(options.threads),
    )
    with bench.undo:
        pending = unreached(_steps(options))
        for what, found in _measure(options, bench):
            record = _joined(record, found)
            del pending[what]
            keep(dataclasses.replace(record, not_done={**record.not_done, **pending}))
    return record


def _steps(options: RunOptions) -> list[str]:
    """Everything that the run is to measure, in order."""
    passes = [workload_step(workload.name) for workload in options.workloads] if Part.PASSES in options.parts else []
    return [*passes, *(part for part in options.parts if part is not Part.PASSES)]


def _measure(options: RunOptions, bench: Bench) -> Iterator[tuple[str, _Found]]:
    """Every step by name with what it found."""
    if Part.PASSES in options.parts:
        how = RoundOptions(shape=options.shape, repetitions=options.repetitions, warmups=options.warmups)
        for measured in measure_rounds(options.workloads, options.recipes, how, bench):
            yield workload_step(measured.workload.name), measured
    if Part.SERVING in options.parts:
        yield Part.SERVING, measure_serving(options.served, options.serving, bench)
    if Part.GROWTH in options.parts:
        yield Part.GROWTH, measure_growth(options.growing, options.shape, options.growth, bench)
    if Part.QUALITY in options.parts:
        yield Part.QUALITY, measure_quality(options.quality, bench)


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
