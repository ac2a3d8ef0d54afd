"""sentence-transformers' modules (transformer, last-token pooling, normalization) on token ids in padded batches.

Options: model (a folder that it saved), copies (that process batches in parallel), threads (of each copy), pinned (yes
or no), backend (torch or onnx), dtype (float32 or bfloat16, for torch), graph (a file in the folder, for onnx).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from ..batches import PaddedBatch, sorted_batches
from ..rows import Rows, Vectors
from .copies import Copies
from .onnx_settings import session_options
from .serve import Embed, Options, serve

PACKAGES = ("sentence-transformers", "optimum-onnx", "onnxruntime", "torch", "transformers")


def _load(options: Options) -> Embed:
    torch.set_num_threads(int(options["threads"]))
    copies = Copies([_open(options) for _ in range(count_models(options))] * shares_of_model(options))

    def encode(model: SentenceTransformer, batch: PaddedBatch) -> Vectors:
        features = {"input_ids": torch.from_numpy(batch.ids), "attention_mask": torch.from_numpy(batch.mask)}
        if options["backend"] == "onnx":
            # the export of Qwen3 needs this input, which no module of sentence-transformers provides
            features["position_ids"] = torch.from_numpy(batch.positions)
        # the mode is a property of the thread
        with torch.inference_mode():
            return np.asarray(model(features)["sentence_embedding"].float().numpy(), np.float32)

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        outputs: list[Vectors] = [np.empty(0, np.float32)] * len(rows)
        batches = list(sorted_batches(rows, batch_rows))
        for batch, vectors in zip(batches, copies.map(encode, batches), strict=True):
            for index, vector in zip(batch.indices, vectors, strict=True):
                outputs[index] = vector
        return np.stack(outputs)

    return embed


def _open(options: Options) -> SentenceTransformer:
    model = SentenceTransformer(
        options["model"], backend=options["backend"], device="cpu", model_kwargs=model_options(options)
    )
    model.train(False)
    return model


def count_models(options: Options) -> int:
    """Return how often the model is loaded: an ONNX session has threads of its own, and so has each of its copies."""
    return int(options["copies"]) if options["backend"] == "onnx" else 1


def shares_of_model(options: Options) -> int:
    """Return how many copies share a loaded model."""
    return int(options["copies"]) // count_models(options)


def model_options(options: Options) -> dict[str, Any]:
    """Return the backend's model_kwargs."""
    if options["backend"] == "torch":
        return {"dtype": {"float32": torch.float32, "bfloat16": torch.bfloat16}[options["dtype"]]}
    return {
        "provider": "CPUExecutionProvider",
        "file_name": options["graph"],
        "session_options": session_options(options),
    }


if __name__ == "__main__":
    serve(_load, PACKAGES)
