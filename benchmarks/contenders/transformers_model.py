"""transformers in fp32, which is also the reference, and in bf16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..batches import BATCH_ROWS
from .contender import Contender, Recipe, RunContext, in_layouts
from .worker import Worker

FP32, FP16, BF16 = "transformers fp32", "transformers fp16", "transformers bf16"
_ARITHMETIC = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_GPU_BATCH_ROWS = (256, 64, 32, 16, 8, 4)
_MODULE = "transformers_model"


def load_fp32(checkpoint: Path, threads: int, device: str = "cpu") -> Worker:
    """Return a worker for the reference implementation with the weights of `checkpoint`."""
    return Worker(_MODULE, _options(checkpoint, threads, "float32", device))


def _options(checkpoint: Path, threads: int, dtype: str, device: str, compiled: str = "no") -> dict[str, str]:
    options = {"model": str(checkpoint), "threads": str(threads), "dtype": dtype}
    return options | {"device": device, "compile": compiled}


def _recipe(program: str, dtype: str, gate: float, compiled: str = "no") -> Recipe:
    def prepare(context: RunContext) -> Sequence[Contender]:
        options = _options(context.checkpoint, context.threads, dtype, context.device, compiled)
        layouts = context.layouts_of(compiled=compiled != "no")
        load = Worker.in_layouts(context, _MODULE, options)
        base = Contender(
            program=program,
            options="",
            engine=load(layouts[0]),
            batch_rows=_GPU_BATCH_ROWS if context.device == "cuda" else (None, *BATCH_ROWS),
            arithmetic=_ARITHMETIC[dtype],
            gate_min_cosine=gate,
            warms_up_fully=context.device == "cuda",
        )
        return in_layouts(base, layouts, load)

    return Recipe(program=program, prepare=prepare)


_PLAIN_FP32, _PLAIN_FP16, _PLAIN_BF16 = (
    _recipe(FP32, "float32", 0.99999),
    _recipe(FP16, "float16", 0.99),
    _recipe(BF16, "bfloat16", 0.99),
)
_COMPILED_FP32, _COMPILED_FP16, _COMPILED_BF16 = (
    _recipe(f"{FP32}, torch.compile", "float32", 0.99999, compiled="yes"),
    _recipe(f"{FP16}, torch.compile", "float16", 0.99, compiled="yes"),
    _recipe(f"{BF16}, torch.compile", "bfloat16", 0.99, compiled="yes"),
)
TRANSFORMERS = (_PLAIN_FP32, _PLAIN_BF16)
COMPILED = (_COMPILED_FP32, _COMPILED_BF16)
"""In both precisions: on a processor without instructions for bf16, fp32 is the faster one."""
GPU_TRANSFORMERS = (_PLAIN_BF16, _PLAIN_FP16)
GPU_COMPILED = (_COMPILED_BF16, _COMPILED_FP16)
"""In both precisions: older GPUs have no instructions for bf16."""
