"""transformers' Qwen3Model with SDPA in padded batches.

Options: model (folder of a checkpoint), copies (threads that process batches in parallel), threads (of each copy),
dtype (float32, float16 or bfloat16), compile (yes or no), device (cpu or cuda).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Model
from transformers.utils import logging

from ..batches import PaddedBatch, sorted_batches
from ..rows import Rows, Vectors
from .copies import Copies
from .serve import Embed, Options, serve

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def _load(options: Options) -> Embed:
    torch.set_num_threads(int(options["threads"]))
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = options.get("device", "cpu")
    model = Qwen3Model.from_pretrained(options["model"], dtype=_DTYPES[options["dtype"]], attn_implementation="sdpa")
    model.to(device)  # type: ignore[arg-type]
    model.train(False)
    forward = torch.compile(model, dynamic=True) if options["compile"] == "yes" else model

    copies = Copies([forward] * int(options.get("copies", "1")))

    def pool_last_token(forward: Callable[..., Any], batch: PaddedBatch) -> torch.Tensor:
        ids, mask = torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.mask).to(device)
        # the mode is a property of the thread
        with torch.inference_mode():
            states = forward(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            columns = torch.from_numpy(batch.last_columns).to(device)
            last: torch.Tensor = states[torch.arange(len(ids), device=device), columns]
            return last

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        outputs: list[Vectors] = [np.empty(0, np.float32)] * len(rows)
        batches = list(sorted_batches(rows, batch_rows))
        # start all batches before copying results, so that a GPU does not wait between batches
        for batch, last in zip(batches, copies.map(pool_last_token, batches), strict=True):
            for index, vector in zip(batch.indices, last.float().cpu().numpy(), strict=True):
                outputs[index] = vector / np.linalg.norm(vector)
        return np.stack(outputs)

    return embed


if __name__ == "__main__":
    serve(_load, ("torch", "transformers"))
