"""This project's packed graph in ONNX Runtime sessions, without a server.

Options: model (a file), copies (sessions that share the batches between them), threads (of each copy), device (cpu or
cuda), provider (JSON, options of the CUDA provider).
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnxruntime

from ..batches import sorted_places
from ..rows import Rows, Vectors
from .serve import Embed, Options, serve


def _load(options: Options) -> Embed:
    copies = int(options.get("copies", "1"))
    free: SimpleQueue[Any] = SimpleQueue()
    for _ in range(copies):
        free.put(_open(options))
    pool = ThreadPoolExecutor(copies)

    def run(rows: Rows) -> Vectors:
        ids = np.concatenate([np.asarray(row, np.int64) for row in rows])
        lengths = np.asarray([len(row) for row in rows], np.int32)
        feed = {"input_ids": ids, "row_lengths": lengths, "request_lengths": np.asarray([len(ids)], np.int32)}
        session = free.get()
        try:
            return np.asarray(session.run(None, feed)[0], np.float32)
        finally:
            free.put(session)

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        if batch_rows >= len(rows):
            return run(rows)
        # the longest first, so that copies come to an end together
        batches = [*sorted_places(rows, batch_rows)][::-1]
        answers: list[Vectors] = [np.empty(0, np.float32)] * len(rows)
        found = pool.map(run, [[rows[place] for place in places] for places in batches])
        for places, vectors in zip(batches, found, strict=True):
            for place, vector in zip(places, vectors, strict=True):
                answers[place] = vector
        return np.stack(answers)

    return embed


def _open(options: Options) -> Any:
    if options.get("device") == "cuda":
        # brings torch along, whose CUDA libraries are used
        from ..cuda_session import open_cuda_session

        return open_cuda_session(Path(options["model"]), int(options["threads"]), json.loads(options["provider"]))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = int(options["threads"])
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(options["model"], settings, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    serve(_load, ("onnxruntime",))
