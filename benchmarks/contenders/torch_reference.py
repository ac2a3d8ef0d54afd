"""transformers in fp32: the reference, and a contender with padded batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen3Model
from transformers.utils import logging

from .batches import ONE_BATCH, SORTED_BATCH_ROWS, PaddedBatch, batch_setting, embed_in_batches
from .contender import Bench, Contender, Recipe, Rows, Vectors

PROGRAM = "transformers fp32"


def reference_vectors(checkpoint: Path, rows: Rows) -> Vectors:
    """The truth that every contender is held against: each row alone and unpadded, float32 [n, hidden]."""
    return embed_in_batches(rows, 1, _hidden_states(_load(checkpoint)))


def _load(checkpoint: Path) -> Qwen3Model:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = Qwen3Model.from_pretrained(str(checkpoint), dtype=torch.float32)
    model.train(False)
    return model


def _hidden_states(model: Qwen3Model) -> Callable[[PaddedBatch], Vectors]:
    def run(batch: PaddedBatch) -> Vectors:
        with torch.inference_mode():
            answer = model(
                input_ids=torch.from_numpy(batch.ids), attention_mask=torch.from_numpy(batch.mask), use_cache=False
            )
        return np.asarray(answer.last_hidden_state.numpy(), np.float32)

    return run


def _prepare(bench: Bench) -> Sequence[Contender]:
    torch.set_num_threads(bench.threads)
    run = _hidden_states(_load(bench.checkpoint))
    versions = {name: version(name) for name in ("torch", "transformers")}

    def contender(setting: str, batch_rows: int | None) -> Contender:
        def embed(rows: Rows) -> Vectors:
            return embed_in_batches(rows, batch_rows or len(rows), run)

        return Contender(program=PROGRAM, setting=setting, versions=versions, embed=embed)

    return [contender(ONE_BATCH, None), *(contender(batch_setting(size), size) for size in SORTED_BATCH_ROWS)]


TRANSFORMERS = Recipe(program=PROGRAM, prepare=_prepare)
