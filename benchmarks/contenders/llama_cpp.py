"""llama.cpp compiled for this processor from its source package, with weights of 4, 8, 16 and 32 bits."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..processor import Processor
from ..reranker_checkpoint import NO, YES, answer_ids, cached_reranker
from ..staging import write_once
from .contender import Contender, Recipe, RunContext, in_layouts
from .peer_environment import InstalledPeer, PeerEnvironment
from .worker import Worker

_ENVIRONMENT = PeerEnvironment(
    name="llama_cpp",
    pins=("llama-cpp-python==0.3.36", "gguf==0.19.0", "safetensors==0.8.0", "numpy==2.4.6"),
)
_WRITER = Path(__file__).resolve().parent.parent / "workers" / "write_gguf.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppCache:
    """How llama.cpp stores keys and values."""

    name: str
    cache: str
    """streams or shared, as the worker takes it."""
    keeps_prefix: bool = False
    """Whether the state of the texts' common prefix is kept, as llama.cpp's server does with `cache_prompt`."""


CACHES = (
    LlamaCppCache(name="one cache per sequence", cache="streams"),
    LlamaCppCache(name="one shared cache", cache="shared"),
    LlamaCppCache(name="one shared cache with the common prefix kept", cache="shared", keeps_prefix=True),
)
_UNQUANTIZED = "llama.cpp unquantized"
_ARITHMETIC = {"F32": "fp32", "F16": "fp32", "BF16": "bf16", "Q8_0": "int8", "Q4_0": "int8"}
"""Products of F16 matrices are summed in fp32."""
_GATES = {"F32": (0.9999, 1e-3)}
_OTHER_GATES = (0.99, 0.1)
"""Minimum cosine and maximum score error."""


def weight_types(program: str, processor: Processor) -> tuple[str, ...]:
    """Return the types of weights that are tried, all of which run on every processor; probably the fastest first."""
    if program == _UNQUANTIZED:
        return ("BF16", "F16", "F32") if processor.has_bf16 else ("F16", "F32", "BF16")
    return (program.removeprefix("llama.cpp "),)


def _prepare(program: str, task: Task, context: RunContext) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(context)
    found = list[Contender]()
    for weights in weight_types(program, context.processor):
        context.log(f"  writing a GGUF file in {weights}")
        file = _gguf_file(peer, weights, task, context)
        for cache in CACHES:
            found += _contenders(program, peer, file, weights, cache, task, context)
    return found


def _contenders(
    program: str, peer: InstalledPeer, file: Path, weights: str, cache: LlamaCppCache, task: Task, context: RunContext
) -> list[Contender]:
    options = {
        "model": str(file),
        "pooling": "last" if task is Task.EMBED else "rank",
        "cache": cache.cache,
        "prefix": "kept" if cache.keeps_prefix else "none",
    }
    cosine, score_error = _GATES.get(weights, _OTHER_GATES)
    load = Worker.in_layouts(context, "llama_cpp", options, peer.python)
    base = Contender(
        program=program,
        options=f"{weights}, {cache.name}" if program == _UNQUANTIZED else cache.name,
        engine=load(context.layouts[0]),
        batch_rows=(None, *BATCH_ROWS),
        arithmetic=_ARITHMETIC[weights],
        gate_min_cosine=cosine,
        gate_max_score_error=score_error,
        padded=False,
        needs_common_prefix=cache.keeps_prefix,
    )
    return in_layouts(base, context.layouts, load)


def _gguf_file(peer: InstalledPeer, weights: str, task: Task, context: RunContext) -> Path:
    """Return the GGUF file, whose classifier in a reranker consists of the head's rows for yes and no."""
    source, folder, answers = context.checkpoint, "gguf", list[str]()
    if task is Task.RERANK:
        source, folder = cached_reranker(context.checkpoint, context.cache), "gguf_rerankers"
        ids = answer_ids(source)
        answers = [str(ids[YES]), str(ids[NO])]
    file = f"model-{weights}.gguf"
    written = write_once(
        context.cache / folder / f"{context.checkpoint.name}-{weights}",
        lambda staged: peer.run("-P", str(_WRITER), str(source), str(staged / file), weights, *answers),
    )
    return written / file


def _recipes(task: Task) -> tuple[Recipe, ...]:
    programs = ("llama.cpp Q8_0", "llama.cpp Q4_0", _UNQUANTIZED)
    return tuple(
        Recipe(program=program, prepare=functools.partial(_prepare, program, task), task=task) for program in programs
    )


LLAMA_CPP, LLAMA_CPP_RERANKERS = (_recipes(task) for task in (Task.EMBED, Task.RERANK))
