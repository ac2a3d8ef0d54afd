"""This project's packed graph in ONNX Runtime sessions, without a server.

Options: model (a file), copies (sessions that process batches in parallel), threads (of each copy), pinned (yes or
no), device (cpu or cuda), provider (options of the CUDA execution provider, JSON).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..batches import sorted_indices
from ..rows import Rows, Vectors
from .copies import Copies
from .serve import Embed, Options, serve


def _load(options: Options) -> Embed:
    copies = Copies([_open(options) for _ in range(int(options.get("copies", "1")))])

    def run(session: Any, rows: Rows) -> Vectors:
        ids = np.concatenate([np.asarray(row, np.int64) for row in rows])
        lengths = np.asarray([len(row) for row in rows], np.int32)
        feed = {"input_ids": ids, "row_lengths": lengths, "request_lengths": np.asarray([len(ids)], np.int32)}
        return np.asarray(session.run(None, feed)[0], np.float32)

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        if batch_rows >= len(rows):
            return copies.map(run, [rows])[0]
        batches = [*sorted_indices(rows, batch_rows)]
        outputs: list[Vectors] = [np.empty(0, np.float32)] * len(rows)
        found = copies.map(run, [[rows[index] for index in indices] for indices in batches])
        for indices, vectors in zip(batches, found, strict=True):
            for index, vector in zip(indices, vectors, strict=True):
                outputs[index] = vector
        return np.stack(outputs)

    return embed


def _open(options: Options) -> Any:
    if options.get("device") == "cuda":
        # imports torch for its CUDA libraries, before ONNX Runtime
        from ..cuda_session import open_cuda_session

        return open_cuda_session(Path(options["model"]), int(options["threads"]), json.loads(options["provider"]))
    import onnxruntime

    from .onnx_settings import session_options

    return onnxruntime.InferenceSession(options["model"], session_options(options), providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    serve(_load, ("onnxruntime",))
