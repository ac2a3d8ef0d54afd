"""llama.cpp with Q8_0 weights (8 bits, blocks of 32), compiled for this processor from its source package."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..reranker_checkpoint import NO, YES, answer_ids, cached_reranker
from ..staging import write_once
from .contender import Contender, Recipe, RunContext
from .peer_environment import InstalledPeer, PeerEnvironment
from .worker import Worker

PROGRAM = "llama.cpp Q8_0"
_ENVIRONMENT = PeerEnvironment(
    name="llama_cpp",
    pins=("llama-cpp-python==0.3.36", "gguf==0.19.0", "safetensors==0.8.0", "numpy==2.4.6"),
)
_WRITER = Path(__file__).resolve().parent.parent / "workers" / "write_gguf.py"
_FILE = "model-Q8_0.gguf"
_CACHES = {"streams": "one cache per sequence", "shared": "one shared cache"}


def _prepare(task: Task, context: RunContext) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(context)
    context.log("  writing a GGUF file")
    options = {"model": str(_gguf_file(peer, task, context)), "threads": str(context.threads)}
    options["pooling"] = "last" if task is Task.EMBED else "rank"
    return [
        Contender(
            program=PROGRAM,
            options=description,
            engine=Worker.started(context, "llama_cpp", {**options, "cache": cache}, peer.python),
            batch_rows=(None, *BATCH_ROWS),
            arithmetic="int8",
            gate_min_cosine=0.99,
            gate_max_score_error=0.1,
            padded=False,
        )
        for cache, description in _CACHES.items()
    ]


def _gguf_file(peer: InstalledPeer, task: Task, context: RunContext) -> Path:
    """Return the GGUF file, whose classifier in a reranker consists of the head's rows for yes and no."""
    source, folder, answers = context.checkpoint, "gguf", list[str]()
    if task is Task.RERANK:
        source, folder = cached_reranker(context.checkpoint, context.cache), "gguf_rerankers"
        ids = answer_ids(source)
        answers = [str(ids[YES]), str(ids[NO])]
    written = write_once(
        context.cache / folder / context.checkpoint.name,
        lambda staged: peer.run("-P", str(_WRITER), str(source), str(staged / _FILE), *answers),
    )
    return written / _FILE


LLAMA_CPP, LLAMA_CPP_RERANKER = (
    Recipe(program=PROGRAM, prepare=functools.partial(_prepare, task), task=task) for task in (Task.EMBED, Task.RERANK)
)
