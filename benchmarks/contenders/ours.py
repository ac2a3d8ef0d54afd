"""This project's packed graph in an ONNX Runtime session of its own, in every precision that the CPU is for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qwen3_triton.client.contract import INPUT_IDS, ROW_LENGTHS, Precision, Task
from qwen3_triton.export import ExportError, ExportOptions, SourceReference, TaskChoice

from ..reranker_checkpoint import cached_reranker
from ..rows import Rows
from .contender import Bench, CannotRun, Contender, Recipe
from .session import Feed, profile_operators
from .worker import Worker

if TYPE_CHECKING:
    from qwen3_triton.export import ExportResult

PRECISIONS = tuple(precision for precision in Precision if precision in ("fp32", "int8"))
"""fp16 and bf16 run on a CPU for checking alone."""
MODEL_NAME = "benchmark"
_GATES = {"fp32": 0.99999, "int8": 0.99}
_SCORE_GATES = {"fp32": 1e-4, "int8": 1e-1}
"""Those of the export."""
_PROMPT_TOKENS = 1024
"""Room for the reranker's prompt and the exporter's probes, one token a letter."""
_PACKED_ROWS = (None, 1, 4, 8)


def program(precision: Precision | str) -> str:
    """What records call this project's graph."""
    return f"qwen3-triton {precision}"


def export_graph(bench: Bench, precision: Precision, task: Task = Task.EMBED) -> ExportResult:
    """The benchmark's checkpoint in a repository where it stands alone, written once a run; raises CannotRun."""
    return _export(bench.checkpoint, bench.cache, bench.max_tokens, precision, task)


@functools.cache
def _export(source: Path, cache: Path, max_tokens: int, precision: Precision, task: Task) -> ExportResult:
    # writes config.pbtxt too, with protobuf from tritonclient, which a machine for GPU runs need not have
    from qwen3_triton.export import export_model

    embeds = task is Task.EMBED
    checkpoint = source if embeds else cached_reranker(source, cache)
    kind = "" if embeds else f"-{task}"
    options = ExportOptions(
        model=SourceReference(str(checkpoint)),
        repository=cache / "model_repositories" / f"{checkpoint.name}-{max_tokens}-{precision}{kind}",
        name=MODEL_NAME,
        task=TaskChoice(task.value),
        precision=precision,
        max_tokens=max_tokens if embeds else max(max_tokens, _PROMPT_TOKENS),
        overwrite=True,
        parity_budget_s=5.0,
    )
    try:
        return export_model(options)
    except ExportError as exc:
        raise CannotRun(str(exc)) from exc


def _recipe(precision: Precision, task: Task) -> Recipe:
    def prepare(bench: Bench) -> Sequence[Contender]:
        result = export_graph(bench, precision, task)
        graph, threads = result.folder.graph(result.version), bench.threads

        def profile(rows: Rows) -> Mapping[str, int]:
            return profile_operators(graph, threads, feed_rows(rows))

        return [
            Contender(
                program=program(precision),
                options="",
                engine=Worker.started(bench, "packed_graph", {"model": str(graph), "threads": str(threads)}),
                batch_rows=_PACKED_ROWS,
                arithmetic=str(precision),
                gate_min_cosine=_GATES[precision],
                gate_max_score_error=_SCORE_GATES[precision],
                padded=False,
                profile=profile,
            )
        ]

    return Recipe(program=program(precision), prepare=prepare, task=task)


def feed_rows(rows: Rows) -> Feed:
    """`rows` as the graph takes them."""
    return {
        INPUT_IDS: np.concatenate([np.asarray(row, np.int64) for row in rows]),
        ROW_LENGTHS: np.asarray([len(row) for row in rows], np.int32),
    }


OURS = tuple(_recipe(precision, Task.EMBED) for precision in PRECISIONS)
OUR_RERANKERS = tuple(_recipe(precision, Task.RERANK) for precision in PRECISIONS)
