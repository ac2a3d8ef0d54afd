"""sentence-transformers' modules (transformer, last-token pooling, normalization) on token ids in padded batches.

Options: model (a folder that it saved), threads, backend (torch or onnx), dtype (float32 or bfloat16, for torch), graph
(a file in the folder, for onnx).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch
from sentence_transformers import SentenceTransformer

from ..batches import sorted_batches
from ..rows import Rows, Vectors
from .serve import Embed, Options, serve

PACKAGES = ("sentence-transformers", "optimum-onnx", "onnxruntime", "torch", "transformers")


def _load(options: Options) -> Embed:
    torch.set_num_threads(int(options["threads"]))
    model = SentenceTransformer(
        options["model"], backend=options["backend"], device="cpu", model_kwargs=model_options(options)
    )
    model.train(False)

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        outputs: list[Vectors] = [np.empty(0, np.float32)] * len(rows)
        for batch in sorted_batches(rows, batch_rows):
            features = {"input_ids": torch.from_numpy(batch.ids), "attention_mask": torch.from_numpy(batch.mask)}
            if options["backend"] == "onnx":
                # the export of Qwen3 needs this input, which no module of sentence-transformers provides
                features["position_ids"] = torch.from_numpy(batch.positions)
            with torch.inference_mode():
                vectors = model(features)["sentence_embedding"].float().numpy()
            for index, vector in zip(batch.indices, vectors, strict=True):
                outputs[index] = vector
        return np.stack(outputs)

    return embed


def model_options(options: Options) -> dict[str, Any]:
    """Return the backend's model_kwargs."""
    if options["backend"] == "torch":
        return {"dtype": {"float32": torch.float32, "bfloat16": torch.bfloat16}[options["dtype"]]}
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = int(options["threads"])
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return {"provider": "CPUExecutionProvider", "file_name": options["graph"], "session_options": settings}


if __name__ == "__main__":
    serve(_load, PACKAGES)
