"""Runs the requested parts of the benchmark and collects them in a record."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from .checkpoint import cached_checkpoint
from .client.measure import ClientResults, measure_client
from .client.options import ClientOptions
from .comparison import ComparisonOptions, compare_contenders
from .contenders import Recipe, RunContext
from .environment import read_code_state, read_environment
from .export_cost import ExportCostOptions, ExportCostResults, measure_exports
from .model_shape import ModelShape
from .processor import read_processor
from .quality import QualityOptions, QualityResults, measure_quality
from .record import Comparison, Record
from .samples import MIN_REPETITIONS
from .scaling import ScalingOptions, ScalingResults, measure_scaling
from .serving.batching import BatchingOptions, measure_batching
from .serving.cases import CaseResults
from .serving.measure import LoadOptions, ServingResults, measure_serving
from .serving.overload import OverloadOptions, measure_overload
from .serving.soak import SoakOptions, SoakResults, measure_soak
from .steps import mark_pending, now, pending_steps, resume, workload_step
from .workload import Workload

_StepResult = (
    Comparison
    | ServingResults
    | CaseResults
    | ClientResults
    | SoakResults
    | ExportCostResults
    | ScalingResults
    | QualityResults
)


class Part(StrEnum):
    """Parts of a run, in this order, so that an interrupted run has results of several parts."""

    QUALITY = "quality"
    """Retrieval quality of the demo model in every precision."""
    SERVING = "serving"
    """This project's models served by a real Triton, under load."""
    OVERLOAD = "overload"
    """Single texts with limits of Triton's queue, and beside a bulk job."""
    BATCHING = "batching"
    """Latency of single texts by the token budget of a batch; not part of a run unless it is named."""
    CLIENT = "client"
    """Processor time, bulk jobs, single texts and import of this project's clients; not part of a run unless it is
    named."""
    SOAK = "soak"
    """A mixed load for half an hour, with the memory of server and clients; not part of a run unless it is named."""
    EXPORT = "export"
    """Time and memory of exports, beside copies of the checkpoint; not part of a run unless it is named."""
    PASSES = "passes"
    """All contenders on all workloads, side by side."""
    SCALING = "scaling"
    """Cost against rows, text length and model size."""


STANDARD_PARTS = tuple(part for part in Part if part not in (Part.BATCHING, Part.CLIENT, Part.SOAK, Part.EXPORT))
"""Parts of a run that names none."""
TOKENIZER_PARTS = (Part.SERVING, Part.OVERLOAD, Part.CLIENT, Part.SOAK)
"""Parts whose served model has the tokenizer of the options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of a run."""

    shape: ModelShape
    workloads: Sequence[Workload]
    served: Workload
    """Workload of the parts serving, overload and soak, and of the single texts of the part client."""
    recipes: Sequence[Recipe]
    scaling_recipes: Sequence[Recipe]
    """Recipes of the part scaling."""
    cache: Path
    threads: int
    parts: Sequence[Part] = STANDARD_PARTS
    repetitions: int = MIN_REPETITIONS
    enough_s: float = math.inf
    """Time after which no further repetition of a workload of the part passes starts."""
    scan_tokens: int | None = None
    """About as many tokens of a workload rank the settings of a program; None: all."""
    warmups: int = 1
    tries_layouts: bool = True
    """Whether programs are tried in other layouts on the cores than the default."""
    serving: LoadOptions = field(default_factory=LoadOptions)
    overload: OverloadOptions = field(default_factory=OverloadOptions)
    batching: BatchingOptions = field(default_factory=BatchingOptions)
    client: ClientOptions = field(default_factory=ClientOptions)
    soak: SoakOptions = field(default_factory=SoakOptions)
    export: ExportCostOptions = field(default_factory=ExportCostOptions)
    scaling: ScalingOptions = field(default_factory=ScalingOptions)
    quality: QualityOptions = field(default_factory=QualityOptions)
    command: str = ""
    """Command line that repeats the run."""


def run_benchmark(
    options: RunOptions,
    log: Callable[[str], None],
    save: Callable[[Record], None] = lambda _: None,
    interrupted: Record | None = None,
) -> Record:
    """Measure all parts of `options` that can run on this machine.

    Args:
        options: what to measure.
        log: receives lines of progress.
        save: receives the record after every step; its `not_measured` lists the pending steps.
        interrupted: record of an interrupted run to resume.

    Raises:
        ResumeError: if `interrupted` cannot be resumed with these options.
    """
    environment = read_environment(options.threads)
    text_tokenizer = options.serving.tokenizer
    tokenizer = text_tokenizer.info if text_tokenizer else None
    record = Record(
        started=now(),
        command=options.command,
        code=read_code_state(),
        environment=environment,
        served_tokenizer=tokenizer,
    )
    pending = mark_pending(_steps(options))
    if interrupted is not None:
        record, pending = resume(interrupted, options.command, environment, tokenizer), pending_steps(interrupted)
        final = {step: reason for step, reason in interrupted.not_measured.items() if step not in pending}
        record = dataclasses.replace(record, not_measured=final)
    context = RunContext(
        checkpoint=cached_checkpoint(options.shape, options.cache),
        cache=options.cache,
        threads=options.threads,
        max_tokens=max(workload.longest for workload in (*options.workloads, options.served)),
        log=log,
        cleanup=ExitStack(),
        processor=read_processor(),
        tries_layouts=options.tries_layouts,
    )
    with context.cleanup:
        for step, result in _measure(options, tuple(pending), context):
            record = _add_result(record, step, result)
            del pending[step]
            save(dataclasses.replace(record, not_measured={**record.not_measured, **pending}))
    return record


def _steps(options: RunOptions) -> list[str]:
    """Return the names of all steps of the run, in order."""
    passes = [workload_step(workload.name) for workload in options.workloads]
    return [step for part in Part if part in options.parts for step in (passes if part is Part.PASSES else [str(part)])]


def _measure(options: RunOptions, steps: Sequence[str], context: RunContext) -> Iterator[tuple[str, _StepResult]]:
    """Execute `steps` and yield each one's name and result."""
    if Part.QUALITY in steps:
        yield Part.QUALITY, measure_quality(options.quality, context)
    if set(TOKENIZER_PARTS).intersection(steps):
        checkpoint = cached_checkpoint(options.shape, options.cache, options.serving.tokenizer)
        served = dataclasses.replace(context, checkpoint=checkpoint)
    if Part.SERVING in steps:
        yield Part.SERVING, measure_serving(options.served, options.serving, served)
    if Part.OVERLOAD in steps:
        yield Part.OVERLOAD, measure_overload(options.served, options.overload, served)
    if Part.BATCHING in steps:
        yield Part.BATCHING, measure_batching(options.batching, options.shape.vocabulary, context)
    if Part.CLIENT in steps:
        yield Part.CLIENT, measure_client(options.served, options.shape, options.client, served)
    if Part.SOAK in steps:
        yield Part.SOAK, measure_soak(options.served, options.soak, served)
    if Part.EXPORT in steps:
        yield Part.EXPORT, measure_exports(options.export, context)
    comparison_options = ComparisonOptions(
        shape=options.shape,
        repetitions=options.repetitions,
        warmups=options.warmups,
        scan_tokens=options.scan_tokens,
        enough_s=options.enough_s,
    )
    workloads = [workload for workload in options.workloads if workload_step(workload.name) in steps]
    if workloads:
        for comparison in compare_contenders(workloads, options.recipes, comparison_options, context):
            yield workload_step(comparison.workload.name), comparison
    if Part.SCALING in steps:
        yield Part.SCALING, measure_scaling(options.scaling_recipes, options.shape, options.scaling, context)


def _add_result(record: Record, step: str, result: _StepResult) -> Record:
    """Return `record` with the result of one step."""
    if isinstance(result, Comparison):
        return dataclasses.replace(record, comparisons=(*record.comparisons, result))
    extended = dataclasses.replace(record, not_measured={**record.not_measured, **result.not_measured})
    if isinstance(result, ServingResults):
        return dataclasses.replace(extended, loads=result.loads)
    if isinstance(result, CaseResults):
        if step == Part.OVERLOAD:
            return dataclasses.replace(extended, overload=result.cases)
        return dataclasses.replace(extended, batching=result.cases)
    if isinstance(result, ClientResults):
        return dataclasses.replace(extended, client=result.client, client_loads=result.loads)
    if isinstance(result, SoakResults):
        return dataclasses.replace(extended, soak=result.soak)
    if isinstance(result, ExportCostResults):
        return dataclasses.replace(extended, exports=result.exports)
    if isinstance(result, ScalingResults):
        return dataclasses.replace(extended, scaling=result.curves)
    return dataclasses.replace(extended, quality=result.scores)
