"""A served model's graph in a session with the settings of the local server's backend, without the server.

Options: model (the graph), config (the model's configuration, in Triton's JSON form).
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3_triton.client.manifest import INPUT_IDS, REQUEST_LENGTHS, ROW_LENGTHS
from qwen3_triton.server.backend.session import open_session
from qwen3_triton.server.backend.settings import Settings

from .messages import BatchesRequest, Message, Timed, require
from .serve import Handle, Options, serve_messages


def _load(options: Options) -> Handle:
    return partial(_compute, open_session(Path(options["model"]), Settings.from_json(options["config"])))


def _compute(session: Any, message: Message) -> Message:
    feeds = [_feed(ids) for ids in require(message, BatchesRequest).batches]
    wall, cpu = time.perf_counter(), time.process_time()
    for feed in feeds:
        session.run(None, feed)
    return Timed(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu)


def _feed(ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the inputs of a batch with one request of token ids [rows, width]."""
    rows, width = ids.shape
    return {
        INPUT_IDS: ids.reshape(-1),
        ROW_LENGTHS: np.full(rows, width, np.int32),
        REQUEST_LENGTHS: np.asarray([ids.size], np.int32),
    }


if __name__ == "__main__":
    serve_messages(_load, ("onnxruntime",))
