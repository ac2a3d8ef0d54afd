"""optimum's ONNX export in fp32, and quantized to int8 by ONNX Runtime."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..reranker_checkpoint import cached_classifier
from ..staging import write_once
from .contender import Contender, Recipe, RunContext
from .peer_environment import TORCH, InstalledPeer, PeerEnvironment
from .worker import Worker

FP32, INT8 = "optimum fp32", "optimum int8"
ENVIRONMENT = PeerEnvironment(
    name="optimum",
    pins=(TORCH, "optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "onnxruntime==1.23.2"),
)
_EXPORT = ("-m", "optimum.exporters.onnx", "--library", "transformers", "--task")
_QUANTIZE = (
    "-c",
    "import sys; from onnxruntime.quantization import QuantType, quantize_dynamic; "
    # models of 4 GB and more need external data; per-channel scales are more accurate and as fast
    "quantize_dynamic(sys.argv[1], sys.argv[2], weight_type=QuantType.QInt8, per_channel=True, "
    "use_external_data_format=True)",
)


_FOLDERS = {Task.EMBED: "graphs", Task.RERANK: "rerankers"}
_OUTPUTS = {Task.EMBED: "last_hidden_state", Task.RERANK: "logits"}


def _exported(peer: InstalledPeer, task: Task, context: RunContext) -> Path:
    """Export the hidden states, or the reranker as a classifier, the only form that the exporter supports."""
    folder = context.cache / f"optimum_{_FOLDERS[task]}" / context.checkpoint.name
    embeds = task is Task.EMBED
    source = context.checkpoint if embeds else cached_classifier(context.checkpoint, context.cache)
    kind = "feature-extraction" if embeds else "text-classification"
    context.log("  exporting with optimum")
    return write_once(folder, lambda staged: peer.run(*_EXPORT, kind, "--model", str(source), str(staged)))


def _quantized(peer: InstalledPeer, task: Task, context: RunContext) -> Path:
    fp32 = _exported(peer, task, context) / "model.onnx"
    folder = context.cache / f"optimum_int8_{_FOLDERS[task]}" / context.checkpoint.name
    context.log("  quantizing with ONNX Runtime")
    return write_once(folder, lambda staged: peer.run(*_QUANTIZE, str(fp32), str(staged / "model.onnx")))


def _prepare_fp32(task: Task, context: RunContext) -> Sequence[Contender]:
    peer = ENVIRONMENT.build(context)
    return [_contender(FP32, peer, _exported(peer, task, context), task, context, gates=(0.99999, 1e-4))]


def _prepare_int8(task: Task, context: RunContext) -> Sequence[Contender]:
    peer = ENVIRONMENT.build(context)
    return [_contender(INT8, peer, _quantized(peer, task, context), task, context, gates=(0.95, 0.1))]


def _contender(
    program: str, peer: InstalledPeer, folder: Path, task: Task, context: RunContext, gates: tuple[float, float]
) -> Contender:
    """Return a contender; `gates` are its minimum cosine and maximum score error."""
    options = {"model": str(folder / "model.onnx"), "threads": str(context.threads), "output": _OUTPUTS[task]}
    return Contender(
        program=program,
        options="",
        engine=Worker.started(context, "onnx_export", options, peer.python),
        batch_rows=(None, *BATCH_ROWS),
        arithmetic=program.removeprefix("optimum "),
        gate_min_cosine=gates[0],
        gate_max_score_error=gates[1],
    )


OPTIMUM, OPTIMUM_RERANKERS = (
    (
        Recipe(program=FP32, prepare=functools.partial(_prepare_fp32, task), task=task),
        Recipe(program=INT8, prepare=functools.partial(_prepare_int8, task), task=task),
    )
    for task in (Task.EMBED, Task.RERANK)
)
