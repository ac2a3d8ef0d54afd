"""llama.cpp with 8-bit weights in blocks of 32, Q8_0, built from its Python package's source for this processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..batches import BATCH_ROWS
from ..staging import written_once
from .contender import Bench, Contender, Recipe
from .peer_environment import PeerEnvironment
from .worker import Worker

PROGRAM = "llama.cpp Q8_0"
_ENVIRONMENT = PeerEnvironment(
    name="llama_cpp",
    pins=("llama-cpp-python==0.3.36", "gguf==0.19.0", "safetensors==0.8.0", "numpy==2.4.6"),
)
_WRITER = Path(__file__).resolve().parent.parent / "workers" / "write_gguf.py"
_FILE = "model-Q8_0.gguf"
_CACHES = {"streams": "a cache for each sequence", "shared": "one cache for all"}


def _prepare(bench: Bench) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(bench)
    bench.say("  writing a GGUF file")
    folder = written_once(
        bench.cache / "gguf" / bench.checkpoint.name,
        lambda staged: peer.run("-P", str(_WRITER), str(bench.checkpoint), str(staged / _FILE)),
    )
    options = {"model": str(folder / _FILE), "threads": str(bench.threads)}
    return [
        Contender(
            program=PROGRAM,
            options=said,
            engine=Worker.started(bench, "llama_cpp", {**options, "cache": cache}, peer.python),
            batch_rows=(None, *BATCH_ROWS),
            arithmetic="int8",
            gate_min_cosine=0.99,
            padded=False,
        )
        for cache, said in _CACHES.items()
    ]


LLAMA_CPP = Recipe(program=PROGRAM, prepare=_prepare)
