"""optimum-intel's OpenVINO export with 8-bit weights, the rest computed in bf16 where the processor has it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..reranker_checkpoint import cached_classifier
from ..staging import written_once
from .contender import Bench, Contender, Recipe
from .peer_environment import TORCH, InstalledPeer, PeerEnvironment
from .worker import Worker

PROGRAM = "OpenVINO int8 weights"
_ENVIRONMENT = PeerEnvironment(
    name="openvino",
    pins=(TORCH, "optimum-intel==2.2.0", "openvino==2026.4.1", "nncf==3.4.0", "transformers==5.5.4"),
    # it comes built for CUDA, does not fit the CPU build of torch, and keeps transformers from loading
    unwanted=("torchvision",),
)
_EXPORT = (
    "-c",
    "from optimum.commands.optimum_cli import main; main()",
    *("export", "openvino", "--library", "transformers", "--weight-format", "int8", "--task"),
)
_PRECISIONS = {Task.EMBED: ("bf16",), Task.RERANK: ("bf16", "f32")}
"""With two streams OpenVINO 2026.4.1 gives a classifier logits of thousands in bf16, and right ones in f32."""
_HINTS = ("LATENCY", "THROUGHPUT")
_GROUPS = (32, 128)
"""Inputs that share a scale when activations are quantised; 32 is the default and the more exact, 128 is faster."""


def _prepare(task: Task, bench: Bench) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(bench)
    bench.say("  exporting with optimum-intel")
    folder = _exported(peer, task, bench)
    return [
        _contender(folder, precision, hint, group, peer.python, bench)
        for precision in _PRECISIONS[task]
        for hint in _HINTS
        for group in _GROUPS
    ]


def _exported(peer: InstalledPeer, task: Task, bench: Bench) -> Path:
    """The hidden states, or the reranker as a classifier, which is the form that exporters know."""
    if task is Task.EMBED:
        source, kind, folder = bench.checkpoint, "feature-extraction", bench.cache / "openvino_graphs"
    else:
        source, kind = cached_classifier(bench.checkpoint, bench.cache), "text-classification"
        folder = bench.cache / "openvino_rerankers"
    return written_once(
        folder / bench.checkpoint.name,
        lambda staged: peer.run(*_EXPORT, kind, "--model", str(source), str(staged)),
    )


def _contender(folder: Path, precision: str, hint: str, group: int, python: Path, bench: Bench) -> Contender:
    options = {
        "model": str(folder / "openvino_model.xml"),
        "threads": str(bench.threads),
        "precision": precision,
        "hint": hint,
        "group": str(group),
    }
    return Contender(
        program=PROGRAM,
        options=f"{precision}, {hint.lower()} hint, groups of {group}",
        engine=Worker.started(bench, "openvino", options, python),
        batch_rows=(None, *BATCH_ROWS),
        arithmetic="int8",
        gate_min_cosine=0.95,
        gate_max_score_error=0.1,
    )


OPENVINO, OPENVINO_RERANKER = (
    Recipe(program=PROGRAM, prepare=functools.partial(_prepare, task), task=task) for task in (Task.EMBED, Task.RERANK)
)
