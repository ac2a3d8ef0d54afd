"""sentence-transformers' modules (body, last token, length 1) on token ids, in padded batches.

Options: model (a folder that it saved), threads, backend (torch or onnx); dtype (float32 or bfloat16) for torch; graph
(a file in the folder) for onnx.
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


def _load(options: Options) -> Embed:
    threads = int(options["threads"])
    torch.set_num_threads(threads)
    chosen = _torch_options(options) if options["backend"] == "torch" else _onnx_options(options, threads)
    model = SentenceTransformer(options["model"], backend=options["backend"], device="cpu", model_kwargs=chosen)
    model.train(False)

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        answers: list[Vectors] = [np.empty(0, np.float32)] * len(rows)
        for batch in sorted_batches(rows, batch_rows):
            features = {"input_ids": torch.from_numpy(batch.ids), "attention_mask": torch.from_numpy(batch.mask)}
            with torch.inference_mode():
                vectors = model(features)["sentence_embedding"].float().numpy()
            for place, vector in zip(batch.places, vectors, strict=True):
                answers[place] = vector
        return np.stack(answers)

    return embed


def _torch_options(options: Options) -> dict[str, Any]:
    return {"dtype": {"float32": torch.float32, "bfloat16": torch.bfloat16}[options["dtype"]]}


def _onnx_options(options: Options, threads: int) -> dict[str, Any]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return {"provider": "CPUExecutionProvider", "file_name": options["graph"], "session_options": settings}


if __name__ == "__main__":
    serve(_load, ("sentence-transformers", "optimum-onnx", "onnxruntime", "torch", "transformers"))
