"""sentence-transformers' CrossEncoder on token ids in padded batches: the model and activation that its predict() runs.

Options: model (folder of a classifier), threads, and those of the worker `sentence_transformers`.
"""

from __future__ import annotations

import numpy as np
import torch
from sentence_transformers import CrossEncoder

from ..batches import sorted_batches
from ..rows import Rows, Vectors
from .sentence_transformers import PACKAGES, model_options
from .serve import Embed, Options, serve


def _load(options: Options) -> Embed:
    torch.set_num_threads(int(options["threads"]))
    model = CrossEncoder(
        options["model"], backend=options["backend"], device="cpu", model_kwargs=model_options(options)
    )
    model.train(False)

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        scores = np.empty((len(rows), 1), np.float32)
        with torch.inference_mode():
            for batch in sorted_batches(rows, batch_rows):
                ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
                logits = model(input_ids=ids, attention_mask=mask, return_dict=True).logits
                scores[batch.indices] = model.activation_fn(logits.float()).numpy()
        return scores

    return embed


if __name__ == "__main__":
    serve(_load, PACKAGES)
