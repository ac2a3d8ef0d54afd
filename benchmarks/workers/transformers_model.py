"""transformers' Qwen3Model, in padded batches.

Options: model (a checkpoint's folder), threads, dtype (float32 or bfloat16), compile (yes or no).
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import Qwen3Model
from transformers.utils import logging

from ..batches import PaddedBatch, embed_in_batches
from ..rows import Rows, Vectors
from .serve import Embed, Options, serve

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _load(options: Options) -> Embed:
    torch.set_num_threads(int(options["threads"]))
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = Qwen3Model.from_pretrained(options["model"], dtype=_DTYPES[options["dtype"]])
    model.train(False)
    forward = torch.compile(model, dynamic=True) if options["compile"] == "yes" else model

    def hidden_states(batch: PaddedBatch) -> Vectors:
        with torch.inference_mode():
            answer = forward(
                input_ids=torch.from_numpy(batch.ids), attention_mask=torch.from_numpy(batch.mask), use_cache=False
            )
            return np.asarray(answer.last_hidden_state.float().numpy(), np.float32)

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        return embed_in_batches(rows, batch_rows, hidden_states)

    return embed


if __name__ == "__main__":
    serve(_load, ("torch", "transformers"))
