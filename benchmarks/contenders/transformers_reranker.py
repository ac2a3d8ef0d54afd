"""transformers in fp32 and bf16 as a reranker: the model card's recipe."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..reranker_checkpoint import NO, YES, answer_ids, cached_reranker
from .contender import Bench, Contender, Recipe
from .transformers_model import BF16, COMPILED, FP32
from .worker import Worker

_MODULE = "transformers_reranker"


def load_reranker_fp32(bench: Bench) -> Worker:
    """The reference implementation with the weights of the run's checkpoint."""
    return Worker(_MODULE, _options(bench, "float32"))


def _options(bench: Bench, dtype: str, compiled: str = "no") -> dict[str, str]:
    reranker = cached_reranker(bench.checkpoint, bench.cache)
    ids = answer_ids(reranker)
    return {
        "model": str(reranker),
        "threads": str(bench.threads),
        "dtype": dtype,
        "compile": compiled,
        "no": str(ids[NO]),
        "yes": str(ids[YES]),
    }


def _recipe(program: str, dtype: str, gate: float, compiled: str = "no") -> Recipe:
    def prepare(bench: Bench) -> Sequence[Contender]:
        return [
            Contender(
                program=program,
                options="",
                engine=Worker.started(bench, _MODULE, _options(bench, dtype, compiled)),
                batch_rows=(None, *BATCH_ROWS),
                arithmetic="bf16" if dtype == "bfloat16" else "fp32",
                gate_max_score_error=gate,
            )
        ]

    return Recipe(program=program, prepare=prepare, task=Task.RERANK)


TRANSFORMERS_RERANKERS = (
    _recipe(FP32, "float32", 1e-4),
    _recipe(BF16, "bfloat16", 5e-2),
    _recipe(COMPILED.program, "bfloat16", 5e-2, compiled="yes"),
)
