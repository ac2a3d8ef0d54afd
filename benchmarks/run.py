"""One run: whatever parts are asked for → record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from .workload import Workload


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


def run_benchmark(options: RunOptions, say: Callable[[str], None]) -> Record:
    """Measures whatever can run of `options`; `say` takes lines of progress."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    bench = Bench(
        checkpoint=cached_checkpoint(options.shape, options.cache),
        cache=options.cache,
        threads=options.threads,
        max_tokens=max(workload.longest for workload in (*options.workloads, options.served)),
        say=say,
        undo=ExitStack(),
    )
    with bench.undo:
        rounds = _measure_rounds(options, bench) if Part.PASSES in options.parts else ()
        served, grown, quality = Served(), Grown(), Quality()
        if Part.SERVING in options.parts:
            served = measure_serving(options.served, options.serving, bench)
        if Part.GROWTH in options.parts:
            grown = measure_growth(options.growing, options.shape, options.growth, bench)
        if Part.QUALITY in options.parts:
            quality = measure_quality(options.quality, bench)
    return Record(
        started=started,
        command=options.command,
        code=read_code_state(),
        environment=read_environment(options.threads),
        rounds=rounds,
        loads=served.loads,
        quality=quality.scores,
        growth=grown.growth,
        not_done={**served.not_done, **grown.not_done, **quality.not_done},
    )


def _measure_rounds(options: RunOptions, bench: Bench) -> tuple[Round, ...]:
    how = RoundOptions(shape=options.shape, repetitions=options.repetitions, warmups=options.warmups)
    return measure_rounds(options.workloads, options.recipes, how, bench)
