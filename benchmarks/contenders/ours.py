"""This project's packed graph in an ONNX Runtime session without a server, in every CPU precision."""

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
from qwen3_triton.export import ExportError, ExportOptions, SourceReference, TaskChoice, Verification
from qwen3_triton.export.batching.inputs import batch_inputs

from ..batches import BATCH_ROWS
from ..environment import installed_versions
from ..prompts import ANY_PAIR_PREFIX_TOKENS, PAIR_PREFIX, QUERY_PREFIX, QUERY_PREFIX_TOKENS, fit_vocabulary
from ..reranker_checkpoint import cached_reranker
from ..rows import Rows
from ..staging import write_once
from .contender import Contender, ContenderUnavailableError, Recipe, RunContext, in_layouts
from .export_progress import StageLines
from .session import Feed, profile_operators
from .worker import Worker

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
"""Precisions that run on a CPU."""
FAST_PRECISIONS = (Precision.FP32, Precision.INT8)
"""Without fp16, which a CPU computes in fp32."""
MODEL_NAME = "benchmark"
_ARITHMETIC = {Precision.FP32: "fp32", Precision.FP16: "fp32", Precision.INT8: "int8"}
_GATES = {Precision.FP32: 0.99999, Precision.FP16: 0.9999, Precision.INT8: 0.99}
_SCORE_GATES = {Precision.FP32: 1e-4, Precision.FP16: 1e-2, Precision.INT8: 1e-1}
"""The export's own limits."""
_FINGERPRINT = 12
"""Characters."""
_PROMPT_TOKENS = 1024
"""Token limit that fits the reranker's prompt and the exporter's test texts with one token per byte."""


_STORED = (QUERY_PREFIX[:QUERY_PREFIX_TOKENS], PAIR_PREFIX[:ANY_PAIR_PREFIX_TOKENS], PAIR_PREFIX)
"""Prefixes that an export with Qwen3's tokenizer stores by default."""


def program(precision: Precision | str, *, reuse: bool = True) -> str:
    """Return the name of this project's graph in records, with or without stored prefixes."""
    return f"qwen3-triton {precision}{'' if reuse else ' without stored prefixes'}"


def export_graph(context: RunContext, precision: Precision, task: Task = Task.EMBED, *, reuse: bool = True) -> Path:
    """Export the benchmark checkpoint into a model repository of its own, unless the cache has it.

    The cache key includes the exporter's code and the versions of its packages.

    Returns:
        The repository, which contains only the model MODEL_NAME.

    Raises:
        ContenderUnavailableError: if the export fails.
    """
    embeds = task is Task.EMBED
    checkpoint = context.checkpoint if embeds else cached_reranker(context.checkpoint, context.cache)
    max_tokens = context.max_tokens if embeds else max(context.max_tokens, _PROMPT_TOKENS)
    name = f"{checkpoint.name}-{max_tokens}-{precision}-{task}{'' if reuse else '-plain'}"
    # the checkpoint's tokenizer is not that of the prompts in the workloads
    vocabulary = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    stored = tuple(tuple(fit_vocabulary(ids, vocabulary)) for ids in _STORED)

    def write(folder: Path) -> None:
        # imported here because it needs tritonclient, which is not required for GPU runs
        from qwen3_triton.export import export_model

        for outdated in folder.parent.glob(f"{name}-{'?' * _FINGERPRINT}"):
            shutil.rmtree(outdated)
        options = ExportOptions(
            model=SourceReference(str(checkpoint)),
            repository=folder,
            name=MODEL_NAME,
            task=TaskChoice(task.value),
            precision=precision,
            max_tokens=max_tokens,
            prefixes=stored if reuse else (),
            prefix_reuse=reuse,
            # every setting is compared with transformers before it is timed
            verify=Verification.NONE,
        )
        try:
            export_model(options, StageLines(context.log))
        except ExportError as exc:
            raise ContenderUnavailableError(str(exc)) from exc

    return write_once(context.cache / "model_repositories" / f"{name}-{exporter_fingerprint()}", write)


def exporter_sources() -> list[Path]:
    """Return the files on which an exported model depends: the exporter and the manifest package."""
    folders = [Path(str(package.__file__)).parent for package in (qwen3_triton.export, manifest)]
    return [file for folder in folders for file in sorted(folder.rglob("*")) if file.suffix in (".py", ".so")]


@functools.cache
def exporter_fingerprint() -> str:
    """Hash the exporter's code and the versions of the packages that it uses."""
    state = hashlib.sha256(json.dumps(installed_versions(("onnx-ir", "onnxruntime", "torch", "transformers"))).encode())
    for file in exporter_sources():
        state.update(file.read_bytes())
    return state.hexdigest()[:_FINGERPRINT]


def _recipe(precision: Precision, task: Task, *, reuse: bool = True) -> Recipe:
    def prepare(context: RunContext) -> Sequence[Contender]:
        folder = ModelFolder(export_graph(context, precision, task, reuse=reuse) / MODEL_NAME)
        graph, threads = folder.graph(max(folder.versions())), context.threads

        def profile(rows: Rows) -> Mapping[str, int]:
            return profile_operators(graph, threads, feed_rows(rows))

        load = Worker.in_layouts(context, "packed_graph", {"model": str(graph)})
        base = Contender(
            program=program(precision, reuse=reuse),
            options="",
            engine=load(context.layouts[0]),
            batch_rows=(None, *BATCH_ROWS),
            arithmetic=_ARITHMETIC[precision],
            gate_min_cosine=_GATES[precision],
            gate_max_score_error=_SCORE_GATES[precision],
            padded=False,
            profile=profile,
        )
        return in_layouts(base, context.layouts, load)

    return Recipe(program=program(precision, reuse=reuse), prepare=prepare, task=task)


def feed_rows(rows: Rows) -> Feed:
    """Return the graph's inputs for a request with `rows`."""
    return batch_inputs(rows)


OURS = tuple(_recipe(precision, Task.EMBED) for precision in PRECISIONS)
OUR_FAST_CPU = tuple(recipe for recipe, precision in zip(OURS, PRECISIONS, strict=True) if precision in FAST_PRECISIONS)
WITHOUT_REUSE = tuple(_recipe(Precision.INT8, task, reuse=False) for task in Task)
OUR_RERANKERS = tuple(_recipe(precision, Task.RERANK) for precision in PRECISIONS)
