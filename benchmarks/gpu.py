"""One run on a GPU: our graphs in every precision against transformers there, and what the GPU gives at best."""

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
from .contenders import Bench, Recipe
from .cuda_session import CUDA_PROVIDER
from .environment import Gpu, read_code_state, read_environment
from .model_shape import ModelShape
from .products import COPY, GPU_KINDS
from .record import Record
from .rounds import RoundOptions, measure_rounds
from .steps import now, unreached, workload_step
from .workload import Workload

_WARMUPS = 3


class NoGpu(Exception):
    """What is missing for a run on a GPU, and where to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """What to measure, and how often."""

    shape: ModelShape
    workloads: Sequence[Workload]
    recipes: Sequence[Recipe]
    cache: Path
    threads: int
    repetitions: int
    gpu: Gpu | None
    """None measures the same on a CPU, which proves the machinery and no speed."""
    command: str


def measure_gpu(
    options: GpuOptions, say: Callable[[str], None], keep: Callable[[Record], None] = lambda _: None
) -> Record:
    """Every recipe on every workload; `say` and `keep` as in a run on a CPU."""
    say("writing the checkpoint")
    bench = Bench(
        checkpoint=cached_checkpoint(options.shape, options.cache),
        cache=options.cache,
        threads=options.threads,
        max_tokens=max(workload.longest for workload in options.workloads),
        say=say,
        undo=ExitStack(),
        device="cpu" if options.gpu is None else "cuda",
    )
    how = RoundOptions(
        shape=options.shape, repetitions=options.repetitions, warmups=_WARMUPS, gauges=(*GPU_KINDS, COPY)
    )
    dry = {} if options.gpu else {"everything on a GPU": "a dry run, whose figures are this CPU's"}
    record = Record(
        started=now(),
        command=options.command,
        code=read_code_state(),
        environment=read_environment(options.threads, options.gpu),
        not_done=dry,
    )
    pending = unreached([workload_step(workload.name) for workload in options.workloads])
    with bench.undo:
        for measured in measure_rounds(options.workloads, options.recipes, how, bench):
            record = dataclasses.replace(record, rounds=(*record.rounds, measured))
            pending.pop(workload_step(measured.workload.name))
            keep(dataclasses.replace(record, not_done={**dry, **pending}))
    return record


def find_gpu() -> Gpu:
    """The GPU that torch and ONNX Runtime both reach; raises NoGpu."""
    if not torch.cuda.is_available():
        raise NoGpu(
            f"torch {torch.__version__} finds no CUDA device: run this where nvidia-smi shows a GPU, with a CUDA build "
            "of torch; --dry tries the machinery on this CPU"
        )
    providers = onnxruntime.get_available_providers()
    if CUDA_PROVIDER not in providers:
        raise NoGpu(
            f"onnxruntime {onnxruntime.__version__} has no {CUDA_PROVIDER} (only {', '.join(providers)}): "
            "install an onnxruntime-gpu wheel for this CUDA in its place"
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
