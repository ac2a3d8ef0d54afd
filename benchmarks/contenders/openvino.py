"""optimum-intel's OpenVINO export with 8-bit weights; other operations run in bf16 if the processor supports it."""

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

PROGRAM = "OpenVINO int8 weights"
_ENVIRONMENT = PeerEnvironment(
    name="openvino",
    pins=(TORCH, "optimum-intel==2.2.0", "openvino==2026.4.1", "nncf==3.4.0", "transformers==5.5.4"),
    # installed as a dependency in a CUDA build, which does not match the CPU build of torch and breaks transformers
    unwanted=("torchvision",),
)
_EXPORT = (
    "-c",
    "from optimum.commands.optimum_cli import main; main()",
    *("export", "openvino", "--library", "transformers", "--weight-format", "int8", "--task"),
)
_PRECISIONS = {Task.EMBED: ("bf16",), Task.RERANK: ("bf16", "f32")}
"""With two streams, OpenVINO 2026.4.1 computes wrong logits (in the thousands) for a classifier in bf16."""
_HINTS = ("LATENCY", "THROUGHPUT")
_GROUPS = (32, 128)
"""Group size of dynamic activation quantization: 32 is the default and more accurate, 128 is faster."""


def _prepare(task: Task, context: RunContext) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(context)
    context.log("  exporting with optimum-intel")
    folder = _exported(peer, task, context)
    return [
        _contender(folder, precision, hint, group, peer.python, context)
        for precision in _PRECISIONS[task]
        for hint in _HINTS
        for group in _GROUPS
    ]


def _exported(peer: InstalledPeer, task: Task, context: RunContext) -> Path:
    """Export the hidden states, or the reranker as a classifier, the only form that the exporter supports."""
    if task is Task.EMBED:
        source, kind, folder = context.checkpoint, "feature-extraction", context.cache / "openvino_graphs"
    else:
        source, kind = cached_classifier(context.checkpoint, context.cache), "text-classification"
        folder = context.cache / "openvino_rerankers"
    return write_once(
        folder / context.checkpoint.name,
        lambda staged: peer.run(*_EXPORT, kind, "--model", str(source), str(staged)),
    )


def _contender(folder: Path, precision: str, hint: str, group: int, python: Path, context: RunContext) -> Contender:
    options = {
        "model": str(folder / "openvino_model.xml"),
        "threads": str(context.threads),
        "precision": precision,
        "hint": hint,
        "group": str(group),
    }
    return Contender(
        program=PROGRAM,
        options=f"{precision}, {hint.lower()} hint, groups of {group}",
        engine=Worker.started(context, "openvino", options, python),
        batch_rows=(None, *BATCH_ROWS),
        arithmetic="int8",
        gate_min_cosine=0.95,
        gate_max_score_error=0.1,
    )


OPENVINO, OPENVINO_RERANKER = (
    Recipe(program=PROGRAM, prepare=functools.partial(_prepare, task), task=task) for task in (Task.EMBED, Task.RERANK)
)
