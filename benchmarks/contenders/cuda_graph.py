"""This project's graphs for GPUs in ONNX Runtime sessions, in every precision and with both attention layouts."""

from __future__ import annotations

import hashlib
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
    SilentProgress,
    SourceReference,
    cuda_provider_options,
    open_checkpoint,
    weight_format,
    write_graph,
)

from ..rows import Rows
from ..staging import write_once
from .contender import Contender, ContenderUnavailableError, Recipe, RunContext
from .ours import exporter_fingerprint, feed_rows, program
from .session import profile_operators
from .worker import Worker

PRECISIONS = (Precision.FP16, Precision.BF16, Precision.INT8)
BATCH_ROWS = (256, 64, 32, 16, 8, 4)
"""Batch sizes to try; attention over pages supports at most 256 rows."""
_ARITHMETIC = {Precision.FP16: "fp16", Precision.BF16: "bf16", Precision.INT8: "fp16"}
_GATE = 0.99
_GRAPH = Path("graph") / "model.onnx"
"""File of a graph in its cache folder."""


def cuda_recipes(runtime: RuntimeVersion) -> tuple[Recipe, ...]:
    """Return recipes for graphs that use only operators of ONNX Runtime `runtime`."""
    return tuple(_recipe(precision, attention, runtime) for precision in PRECISIONS for attention in CudaAttention)


def _recipe(precision: Precision, attention: CudaAttention, runtime: RuntimeVersion) -> Recipe:
    name = f"{program(precision)} {attention}"

    def prepare(context: RunContext) -> Sequence[Contender]:
        graph = _write(
            context, precision, CudaProfile(runtime=runtime, attention=attention, cpu_twin=context.device == "cpu")
        )
        provider = cuda_provider_options(precision, runtime)
        options = {"model": str(graph), "threads": str(context.threads)}
        options |= {"device": context.device, "provider": json.dumps(provider)}

        def profile(rows: Rows) -> Mapping[str, int]:
            if context.device != "cuda":
                return profile_operators(graph, context.threads, feed_rows(rows))
            from ..cuda_session import profile_kernels

            return profile_kernels(graph, context.threads, provider, feed_rows(rows))

        return [
            Contender(
                program=name,
                options="",
                engine=Worker.started(context, "packed_graph", options),
                batch_rows=BATCH_ROWS,
                arithmetic=_ARITHMETIC[precision],
                gate_min_cosine=_GATE,
                padded=False,
                warms_up_fully=context.device == "cuda",
                profile=profile,
            )
        ]

    return Recipe(program=name, prepare=prepare)


def _write(context: RunContext, precision: Precision, profile: CudaProfile) -> Path:
    """Write the graph of the benchmark checkpoint, unless the cache has it.

    The cache key includes every option of the graph, the exporter's code and the versions of its packages.
    """
    options = GraphOptions(format=weight_format(precision, Device.CUDA), max_tokens=context.max_tokens, cuda=profile)
    key = hashlib.sha256(repr(options).encode()).hexdigest()[:12]
    name = f"{context.checkpoint.name}-{precision}-{profile.attention}-{key}"

    def write(folder: Path) -> None:
        for outdated in folder.parent.glob(f"{name}-*"):
            shutil.rmtree(outdated)
        try:
            checkpoint = open_checkpoint(SourceReference(str(context.checkpoint)))
            write_graph(checkpoint, folder / _GRAPH, options, SilentProgress())
        except ExportError as exc:
            raise ContenderUnavailableError(str(exc)) from exc

    return write_once(context.cache / "cuda_graphs" / f"{name}-{exporter_fingerprint()}", write) / _GRAPH
