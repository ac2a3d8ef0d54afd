"""transformers in fp32 and bf16 as a reranker, following the model card."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..reranker_checkpoint import NO, YES, answer_ids, cached_reranker
from .contender import Contender, Recipe, RunContext, in_layouts
from .transformers_model import BF16, COMPILED, FP32
from .worker import Worker

_MODULE = "transformers_reranker"


def load_reranker_fp32(context: RunContext) -> Worker:
    """Return a worker for the reference implementation with the weights of the benchmark checkpoint."""
    return Worker(_MODULE, _options(context, "float32"))


def _options(context: RunContext, dtype: str, compiled: str = "no") -> dict[str, str]:
    reranker = cached_reranker(context.checkpoint, context.cache)
    ids = answer_ids(reranker)
    return {
        "model": str(reranker),
        "threads": str(context.threads),
        "dtype": dtype,
        "compile": compiled,
        "no": str(ids[NO]),
        "yes": str(ids[YES]),
    }


def _recipe(program: str, dtype: str, gate: float, compiled: str = "no") -> Recipe:
    def prepare(context: RunContext) -> Sequence[Contender]:
        options = _options(context, dtype, compiled)
        layouts = context.layouts_of(compiled=compiled != "no")
        load = Worker.in_layouts(context, _MODULE, options)
        base = Contender(
            program=program,
            options="",
            engine=load(layouts[0]),
            batch_rows=(None, *BATCH_ROWS),
            arithmetic="bf16" if dtype == "bfloat16" else "fp32",
            gate_max_score_error=gate,
        )
        return in_layouts(base, layouts, load)

    return Recipe(program=program, prepare=prepare, task=Task.RERANK)


_COMPILED_FP32, _COMPILED_BF16 = COMPILED
TRANSFORMERS_RERANKERS = (
    _recipe(FP32, "float32", 1e-4),
    _recipe(BF16, "bfloat16", 5e-2),
    _recipe(_COMPILED_FP32.program, "float32", 1e-4, compiled="yes"),
    _recipe(_COMPILED_BF16.program, "bfloat16", 5e-2, compiled="yes"),
)
