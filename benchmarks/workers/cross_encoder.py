"""sentence-transformers' CrossEncoder on token ids in padded batches: the model and activation that its predict() runs.

Options: model (folder of a classifier), and those of the worker `sentence_transformers`.
"""

from __future__ import annotations

import numpy as np
import torch
from sentence_transformers import CrossEncoder

from ..batches import PaddedBatch, sorted_batches
from ..rows import Rows, Vectors
from .copies import Copies
from .sentence_transformers import PACKAGES, count_models, model_options, shares_of_model
from .serve import Embed, Options, serve


def _load(options: Options) -> Embed:
    torch.set_num_threads(int(options["threads"]))
    copies = Copies([_open(options) for _ in range(count_models(options))] * shares_of_model(options))

    def predict(model: CrossEncoder, batch: PaddedBatch) -> Vectors:
        ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
        # the mode is a property of the thread
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, return_dict=True).logits
            return np.asarray(model.activation_fn(logits.float()).numpy(), np.float32)

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        scores = np.empty((len(rows), 1), np.float32)
        batches = list(sorted_batches(rows, batch_rows))
        for batch, found in zip(batches, copies.map(predict, batches), strict=True):
            scores[batch.indices] = found
        return scores

    return embed


def _open(options: Options) -> CrossEncoder:
    model = CrossEncoder(
        options["model"], backend=options["backend"], device="cpu", model_kwargs=model_options(options)
    )
    model.train(False)
    return model


if __name__ == "__main__":
    serve(_load, PACKAGES)
