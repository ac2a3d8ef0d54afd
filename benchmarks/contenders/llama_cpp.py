"""llama.cpp with 8-bit weights in blocks of 32, Q8_0, built from its Python package's source for this processor."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..reranker_checkpoint import NO, YES, answer_ids, cached_reranker
from ..staging import written_once
from .contender import Bench, Contender, Recipe
from .peer_environment import InstalledPeer, PeerEnvironment
from .worker import Worker

PROGRAM = "llama.cpp Q8_0"
_ENVIRONMENT = PeerEnvironment(
    name="llama_cpp",
    pins=("llama-cpp-python==0.3.36", "gguf==0.19.0", "safetensors==0.8.0", "numpy==2.4.6"),
)
_WRITER = Path(__file__).resolve().parent.parent / "workers" / "write_gguf.py"
_FILE = "model-Q8_0.gguf"
_CACHES = {"streams": "a cache for each sequence", "shared": "one cache for all"}


def _prepare(task: Task, bench: Bench) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(bench)
    bench.say("  writing a GGUF file")
    options = {"model": str(_written(peer, task, bench)), "threads": str(bench.threads)}
    options["pooling"] = "last" if task is Task.EMBED else "rank"
    return [
        Contender(
            program=PROGRAM,
            options=said,
            engine=Worker.started(bench, "llama_cpp", {**options, "cache": cache}, peer.python),
            batch_rows=(None, *BATCH_ROWS),
            arithmetic="int8",
            gate_min_cosine=0.99,
            gate_max_score_error=0.1,
            padded=False,
        )
        for cache, said in _CACHES.items()
    ]


def _written(peer: InstalledPeer, task: Task, bench: Bench) -> Path:
    """The file, of a reranker with the head's rows of both answers as its classifier."""
    source, folder, answers = bench.checkpoint, "gguf", list[str]()
    if task is Task.RERANK:
        source, folder = cached_reranker(bench.checkpoint, bench.cache), "gguf_rerankers"
        ids = answer_ids(source)
        answers = [str(ids[YES]), str(ids[NO])]
    written = written_once(
        bench.cache / folder / bench.checkpoint.name,
        lambda staged: peer.run("-P", str(_WRITER), str(source), str(staged / _FILE), *answers),
    )
    return written / _FILE


LLAMA_CPP, LLAMA_CPP_RERANKER = (
    Recipe(program=PROGRAM, prepare=functools.partial(_prepare, task), task=task) for task in (Task.EMBED, Task.RERANK)
)
