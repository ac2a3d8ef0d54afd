"""This project's graphs for GPUs in ONNX Runtime sessions: every precision, attention over rows and over pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from qwen3_triton.client.manifest import Precision
from qwen3_triton.export import (
    CudaAttention,
    CudaProfile,
    Device,
    ExportError,
    GraphOptions,
    RuntimeVersion,
    SourceReference,
    cuda_provider_options,
    open_checkpoint,
    weight_format,
    write_graph,
)

from ..rows import Rows
from .contender import Bench, CannotRun, Contender, Recipe
from .ours import feed_rows, program
from .session import profile_operators
from .worker import Worker

PRECISIONS = (Precision.FP16, Precision.BF16, Precision.INT8)
BATCH_ROWS = (256, 64, 32, 16, 8, 4)
"""Batches that programs on GPUs are tried at; attention over pages takes 256 rows at most."""
_ARITHMETIC = {Precision.FP16: "fp16", Precision.BF16: "bf16", Precision.INT8: "fp16"}
_GATE = 0.99


def cuda_recipes(runtime: RuntimeVersion) -> tuple[Recipe, ...]:
    """Graphs with operators that `runtime` has."""
    return tuple(_recipe(precision, attention, runtime) for precision in PRECISIONS for attention in CudaAttention)


def _recipe(precision: Precision, attention: CudaAttention, runtime: RuntimeVersion) -> Recipe:
    name = f"{program(precision)} {attention}"

    def prepare(bench: Bench) -> Sequence[Contender]:
        graph = _write(bench, precision, CudaProfile(runtime=runtime, attention=attention))
        provider = cuda_provider_options(precision, runtime)
        options = {"model": str(graph), "threads": str(bench.threads)}
        options |= {"device": bench.device, "provider": json.dumps(provider)}

        def profile(rows: Rows) -> Mapping[str, int]:
            if bench.device != "cuda":
                return profile_operators(graph, bench.threads, feed_rows(rows))
            from ..cuda_session import profile_kernels

            return profile_kernels(graph, bench.threads, provider, feed_rows(rows))

        return [
            Contender(
                program=name,
                options="",
                engine=Worker.started(bench, "packed_graph", options),
                batch_rows=BATCH_ROWS,
                arithmetic=_ARITHMETIC[precision],
                gate_min_cosine=_GATE,
                padded=False,
                profile=profile,
            )
        ]

    return Recipe(program=name, prepare=prepare)


def _write(bench: Bench, precision: Precision, profile: CudaProfile) -> Path:
    """The graph of the benchmark's checkpoint, written anew; raises CannotRun."""
    folder = bench.cache / "cuda_graphs" / f"{bench.checkpoint.name}-{precision}-{profile.attention}"
    shutil.rmtree(folder, ignore_errors=True)
    file = folder / "model.onnx"
    options = GraphOptions(format=weight_format(precision, Device.CUDA), max_tokens=bench.max_tokens, cuda=profile)
    try:
        checkpoint = open_checkpoint(SourceReference(str(bench.checkpoint)))
        write_graph(checkpoint, file, options, lambda _done, _total: None)
    except ExportError as exc:
        raise CannotRun(str(exc)) from exc
    return file
