"""This project's packed graph in an ONNX Runtime session of its own, in every precision that runs on a CPU."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import qwen3_triton.export
from qwen3_triton.client import manifest
from qwen3_triton.client.manifest import ModelFolder, Precision, Task
from qwen3_triton.export import ExportError, ExportOptions, SourceReference, TaskChoice
from qwen3_triton.export.batching.inputs import batch_inputs

from ..environment import installed_versions
from ..reranker_checkpoint import cached_reranker
from ..rows import Rows
from ..staging import written_once
from .contender import Bench, CannotRun, Contender, Recipe
from .export_progress import StageLines
from .session import Feed, profile_operators
from .worker import Worker

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
"""Those that run on a CPU."""
FAST_PRECISIONS = (Precision.FP32, Precision.INT8)
"""Those that a CPU gains by: fp16 is computed in fp32."""
MODEL_NAME = "benchmark"
_ARITHMETIC = {Precision.FP32: "fp32", Precision.FP16: "fp32", Precision.INT8: "int8"}
_GATES = {Precision.FP32: 0.99999, Precision.FP16: 0.9999, Precision.INT8: 0.99}
_SCORE_GATES = {Precision.FP32: 1e-4, Precision.FP16: 1e-2, Precision.INT8: 1e-1}
"""Those of the export."""
_PROMPT_TOKENS = 1024
"""Room for the reranker's prompt and the exporter's probes, one token a letter."""
_COPIES = (1, 2)
"""Of the model, in one process: as many instances behind Triton."""
_PACKED_ROWS = (None, 1, 4, 8)
_SHARED_ROWS = (2, 4, 8)


def program(precision: Precision | str) -> str:
    """What records call this project's graph."""
    return f"qwen3-triton {precision}"


def export_graph(bench: Bench, precision: Precision, task: Task = Task.EMBED) -> Path:
    """A repository where the benchmark's checkpoint stands alone as MODEL_NAME; raises CannotRun.

    It is written once for each state of the exporter's code.
    """
    embeds = task is Task.EMBED
    checkpoint = bench.checkpoint if embeds else cached_reranker(bench.checkpoint, bench.cache)
    max_tokens = bench.max_tokens if embeds else max(bench.max_tokens, _PROMPT_TOKENS)
    name = f"{checkpoint.name}-{max_tokens}-{precision}-{task}"

    def write(folder: Path) -> None:
        # writes config.pbtxt too, with protobuf from tritonclient, which a machine for GPU runs need not have
        from qwen3_triton.export import export_model

        for outdated in folder.parent.glob(f"{name}-*"):
            shutil.rmtree(outdated)
        options = ExportOptions(
            model=SourceReference(str(checkpoint)),
            repository=folder,
            name=MODEL_NAME,
            task=TaskChoice(task.value),
            precision=precision,
            max_tokens=max_tokens,
            parity_budget_s=5.0,
        )
        try:
            export_model(options, StageLines(bench.say))
        except ExportError as exc:
            raise CannotRun(str(exc)) from exc

    return written_once(bench.cache / "model_repositories" / f"{name}-{_exporter_state()}", write)


def exporter_sources() -> list[Path]:
    """The code that an exported model depends on: the exporter, and the manifest that it writes."""
    folders = [Path(str(package.__file__)).parent for package in (qwen3_triton.export, manifest)]
    return [file for folder in folders for file in sorted(folder.rglob("*")) if file.suffix in (".py", ".so")]


@functools.cache
def _exporter_state() -> str:
    """Changes with the exporter's code and with the packages that it computes with."""
    state = hashlib.sha256(json.dumps(installed_versions(("onnx-ir", "onnxruntime", "torch", "transformers"))).encode())
    for file in exporter_sources():
        state.update(file.read_bytes())
    return state.hexdigest()[:12]


def _recipe(precision: Precision, task: Task) -> Recipe:
    def prepare(bench: Bench) -> Sequence[Contender]:
        folder = ModelFolder(export_graph(bench, precision, task) / MODEL_NAME)
        graph, threads = folder.graph(max(folder.versions())), bench.threads

        def profile(rows: Rows) -> Mapping[str, int]:
            return profile_operators(graph, threads, feed_rows(rows))

        def contender(copies: int) -> Contender:
            """One copy with every thread takes all rows at once or batches; several share batches between them."""
            each = threads // copies
            options = {"model": str(graph), "copies": str(copies), "threads": str(each)}
            return Contender(
                program=program(precision),
                options="" if copies == 1 else f"{copies} copies, {each} thread{'s' if each > 1 else ''} each",
                engine=Worker.started(bench, "packed_graph", options),
                batch_rows=_PACKED_ROWS if copies == 1 else _SHARED_ROWS,
                arithmetic=_ARITHMETIC[precision],
                gate_min_cosine=_GATES[precision],
                gate_max_score_error=_SCORE_GATES[precision],
                copies=copies,
                padded=False,
                profile=profile,
            )

        return [contender(copies) for copies in _COPIES if threads % copies == 0]

    return Recipe(program=program(precision), prepare=prepare, task=task)


def feed_rows(rows: Rows) -> Feed:
    """Return `rows` as one request's inputs of the graph."""
    return batch_inputs(rows)


OURS = tuple(_recipe(precision, Task.EMBED) for precision in PRECISIONS)
OUR_FAST = tuple(recipe for recipe, precision in zip(OURS, PRECISIONS, strict=True) if precision in FAST_PRECISIONS)
OUR_RERANKERS = tuple(_recipe(precision, Task.RERANK) for precision in PRECISIONS)
