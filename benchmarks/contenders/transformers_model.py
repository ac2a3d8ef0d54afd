"""transformers in fp32 and bf16: the reference, and what a user has without any export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..batches import BATCH_ROWS
from .contender import Bench, Contender, Recipe
from .worker import Worker

FP32, BF16 = "transformers fp32", "transformers bf16"
_GPU_BATCH_ROWS = (256, 64, 32, 16, 8, 4)
_MODULE = "transformers_model"


def load_fp32(checkpoint: Path, threads: int, device: str = "cpu") -> Worker:
    """The reference implementation with a checkpoint's weights."""
    return Worker(_MODULE, _options(checkpoint, threads, "float32", device))


def _options(checkpoint: Path, threads: int, dtype: str, device: str, compiled: str = "no") -> dict[str, str]:
    options = {"model": str(checkpoint), "threads": str(threads), "dtype": dtype}
    return options | {"device": device, "compile": compiled}


def _recipe(program: str, dtype: str, gate: float, compiled: str = "no") -> Recipe:
    def prepare(bench: Bench) -> Sequence[Contender]:
        options = _options(bench.checkpoint, bench.threads, dtype, bench.device, compiled)
        return [
            Contender(
                program=program,
                options="",
                engine=Worker.started(bench, _MODULE, options),
                batch_rows=_GPU_BATCH_ROWS if bench.device == "cuda" else (None, *BATCH_ROWS),
                arithmetic="bf16" if dtype == "bfloat16" else "fp32",
                gate_min_cosine=gate,
            )
        ]

    return Recipe(program=program, prepare=prepare)


TRANSFORMERS = (_recipe(FP32, "float32", 0.99999), _recipe(BF16, "bfloat16", 0.99))
COMPILED = _recipe(f"{BF16}, torch.compile", "bfloat16", 0.99, compiled="yes")
"""In the precision in which a pass is short enough for what compiling saves to be seen."""
