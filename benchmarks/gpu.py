"""A benchmark run on a GPU: this project's graphs in every precision, transformers, and the GPU's peak rates."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

# torch first: it loads the CUDA and cuDNN libraries that ONNX Runtime then finds
import torch

import onnxruntime  # isort: skip

from .checkpoint import cached_checkpoint
from .comparison import Bench, ComparisonOptions
from .contenders import Recipe, RunContext
from .contenders.contender import failure_reason
from .cuda_session import CUDA_PROVIDER
from .environment import Gpu, read_code_state, read_environment
from .model_shape import ModelShape
from .processor import read_processor
from .record import Comparison, Record
from .roofline import COPY_PROBE, GPU_PROBES
from .steps import failed_after, interrupted_after, mark_pending, now, workload_step
from .workload import GPU_STANDARD, WORKLOADS, Workload

_WARMUPS = 3
_MAX_TOKENS = max(WORKLOADS[name].longest for name in GPU_STANDARD)
"""Longest row of a graph in every run, so that a run of some workloads and one of all use the same cached graphs."""


class GpuNotFoundError(Exception):
    """torch or ONNX Runtime cannot use a GPU; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """Options of a run on a GPU."""

    shape: ModelShape
    workloads: Sequence[Workload]
    recipes: Sequence[Recipe]
    cache: Path
    threads: int
    repetitions: int
    gpu: Gpu | None
    """None runs everything on the CPU, to test the benchmark itself."""
    command: str
    """Command line that repeats the run."""
    profiles: bool = True
    """Whether to profile this project's graphs."""


class RunningRecord:
    """The record of a run in progress, saved after every result, with the reasons of incomplete workloads."""

    def __init__(self, record: Record, workloads: Sequence[Workload], save: Callable[[Record], None]) -> None:
        self._record = record
        self._pending = mark_pending([workload_step(workload.name) for workload in workloads])
        self._save = save
        self._partial: Comparison | None = None
        self._reached = ""

    def progress(self, comparison: Comparison, reached: str) -> None:
        """Save an incomplete comparison, which replaces the previous one of its workload."""
        self._partial, self._reached = comparison, reached
        self._pending[workload_step(comparison.workload.name)] = interrupted_after(reached)
        self._save(self._extended(comparison))

    def complete(self, comparison: Comparison) -> None:
        """Save a complete comparison."""
        self._pending.pop(workload_step(comparison.workload.name))
        self._finish(comparison)

    def fail(self, workload: Workload, reason: str) -> None:
        """Save what was measured on a workload whose comparison failed."""
        step = workload_step(workload.name)
        del self._pending[step]
        failed = {**self._record.not_measured, step: failed_after(self._reached, reason)}
        self._record = dataclasses.replace(self._record, not_measured=failed)
        self._finish(self._partial)

    def record(self) -> Record:
        """Return the record so far."""
        return self._extended(self._partial)

    def _finish(self, comparison: Comparison | None) -> None:
        self._record = dataclasses.replace(self._record, comparisons=self._extended(comparison).comparisons)
        self._partial, self._reached = None, ""
        self._save(self.record())

    def _extended(self, comparison: Comparison | None) -> Record:
        comparisons = (*self._record.comparisons, *([comparison] if comparison else []))
        not_measured = {**self._record.not_measured, **self._pending}
        return dataclasses.replace(self._record, comparisons=comparisons, not_measured=not_measured)


def measure_gpu(
    options: GpuOptions, log: Callable[[str], None], save: Callable[[Record], None] = lambda _: None
) -> Record:
    """Compare every recipe on every workload; a workload or program that fails does not affect the others.

    Args:
        options: what to measure.
        log: receives lines of progress.
        save: receives the record after every program's selection, repetition and profile; its `not_measured` lists
            incomplete and pending workloads.
    """
    log("writing the checkpoint")
    context = RunContext(
        checkpoint=cached_checkpoint(options.shape, options.cache),
        cache=options.cache,
        threads=options.threads,
        max_tokens=max(_MAX_TOKENS, *(workload.longest for workload in options.workloads)),
        log=log,
        cleanup=ExitStack(),
        processor=read_processor(),
        tries_layouts=False,
        device="cpu" if options.gpu is None else "cuda",
    )
    comparison_options = ComparisonOptions(
        shape=options.shape,
        repetitions=options.repetitions,
        warmups=_WARMUPS,
        probes=(*GPU_PROBES, COPY_PROBE),
        profiles=options.profiles,
    )
    dry = {} if options.gpu else {"GPU": "dry run, everything was measured on the CPU"}
    record = Record(
        started=now(),
        command=options.command,
        code=read_code_state(),
        environment=read_environment(options.threads, options.gpu),
        not_measured=dry,
    )
    running = RunningRecord(record, options.workloads, save)
    with context.cleanup:
        bench = Bench(options.recipes, comparison_options, context)
        for workload in options.workloads:
            try:
                comparison = bench.compare(workload, running.progress)
            except Exception as exc:  # noqa: BLE001 - what was measured before must not be lost
                reason = failure_reason(exc, log)
                log(f"workload {workload.name} failed: {reason}")
                running.fail(workload, reason)
            else:
                running.complete(comparison)
    return running.record()


def find_gpu() -> Gpu:
    """Return the GPU that torch and ONNX Runtime can both use.

    Raises:
        GpuNotFoundError: if one of them cannot use a GPU.
    """
    if not torch.cuda.is_available():
        raise GpuNotFoundError(
            f"torch {torch.__version__} finds no CUDA device: run this on a machine where nvidia-smi lists a GPU, with "
            "a CUDA build of torch; --dry tests the benchmark itself on the CPU"
        )
    providers = onnxruntime.get_available_providers()
    if CUDA_PROVIDER not in providers:
        raise GpuNotFoundError(
            f"onnxruntime {onnxruntime.__version__} has no {CUDA_PROVIDER} (only {', '.join(providers)}): "
            "replace it with an onnxruntime-gpu wheel for this version of CUDA"
        )
    properties = torch.cuda.get_device_properties(0)
    return Gpu(
        name=properties.name,
        memory_bytes=properties.total_memory,
        driver=_driver(),
        cuda=str(torch.version.cuda),
        providers=", ".join(providers),
    )


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
