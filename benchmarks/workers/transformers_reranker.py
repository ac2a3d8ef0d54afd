"""transformers' Qwen3ForCausalLM as a reranker, following the model card: left padding, logits of the last position.

Logits are computed for the last position only, which is fastest. Options: model (folder of a checkpoint), copies
(threads that process batches in parallel), threads (of each copy), dtype (float32 or bfloat16), compile (yes or no), no
and yes (token ids).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import Qwen3ForCausalLM
from transformers.utils import logging

from ..batches import sorted_indices
from ..rows import Rows, Vectors
from .copies import Copies
from .serve import Embed, Options, serve

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _load(options: Options) -> Embed:
    torch.set_num_threads(int(options["threads"]))
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = Qwen3ForCausalLM.from_pretrained(options["model"], dtype=_DTYPES[options["dtype"]])
    model.train(False)
    forward = torch.compile(model, dynamic=True) if options["compile"] == "yes" else model
    answer_ids = [int(options["no"]), int(options["yes"])]

    copies = Copies([forward] * int(options.get("copies", "1")))

    def score(forward: Callable[..., Any], rows: Rows) -> torch.Tensor:
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        # the mode is a property of the thread
        with torch.inference_mode():
            logits = forward(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits
            return torch.log_softmax(logits[:, -1, answer_ids].float(), dim=1)[:, 1].exp()

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        scores = np.empty((len(rows), 1), np.float32)
        batches = list(sorted_indices(rows, batch_rows))
        found = copies.map(score, [[rows[index] for index in indices] for indices in batches])
        for indices, batch_scores in zip(batches, found, strict=True):
            scores[indices, 0] = batch_scores.numpy()
        return scores

    return embed


if __name__ == "__main__":
    serve(_load, ("torch", "transformers"))
