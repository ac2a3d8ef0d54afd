"""A benchmark run on a GPU: this project's graphs in every precision, transformers, and the GPU's peak rates."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch

from .checkpoint import cached_checkpoint
from .comparison import ComparisonOptions, compare_contenders
from .contenders import Recipe, RunContext
from .cuda_session import CUDA_PROVIDER
from .environment import Gpu, read_code_state, read_environment
from .model_shape import ModelShape
from .record import Record
from .roofline import COPY_PROBE, GPU_PROBES
from .steps import mark_pending, now, workload_step
from .workload import Workload

_WARMUPS = 3


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


def measure_gpu(
    options: GpuOptions, log: Callable[[str], None], save: Callable[[Record], None] = lambda _: None
) -> Record:
    """Compare every recipe on every workload.

    Args:
        options: what to measure.
        log: receives lines of progress.
        save: receives the record after every workload; its `not_measured` lists the pending ones.
    """
    log("writing the checkpoint")
    context = RunContext(
        checkpoint=cached_checkpoint(options.shape, options.cache),
        cache=options.cache,
        threads=options.threads,
        max_tokens=max(workload.longest for workload in options.workloads),
        log=log,
        cleanup=ExitStack(),
        device="cpu" if options.gpu is None else "cuda",
    )
    comparison_options = ComparisonOptions(
        shape=options.shape, repetitions=options.repetitions, warmups=_WARMUPS, probes=(*GPU_PROBES, COPY_PROBE)
    )
    dry = {} if options.gpu else {"GPU": "dry run, everything was measured on the CPU"}
    record = Record(
        started=now(),
        command=options.command,
        code=read_code_state(),
        environment=read_environment(options.threads, options.gpu),
        not_measured=dry,
    )
    pending = mark_pending([workload_step(workload.name) for workload in options.workloads])
    with context.cleanup:
        for comparison in compare_contenders(options.workloads, options.recipes, comparison_options, context):
            record = dataclasses.replace(record, comparisons=(*record.comparisons, comparison))
            pending.pop(workload_step(comparison.workload.name))
            save(dataclasses.replace(record, not_measured={**dry, **pending}))
    return record


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
