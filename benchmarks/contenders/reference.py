"""The reference that contenders are compared with: transformers in fp32, one unpadded row at a time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from qwen3_triton.client.manifest import Task

from ..rows import Rows, Vectors
from ..staging import write_once
from .contender import RunContext
from .transformers_model import load_fp32
from .transformers_reranker import load_reranker_fp32

_FILES = {Task.EMBED: "vectors.npy", Task.RERANK: "scores.npy"}


def reference_outputs(context: RunContext, rows: Rows, task: Task) -> Vectors:
    """Return the reference's outputs for `rows`, computing them unless the cache has them.

    Returns:
        Unit vectors [n, hidden] or scores [n, 1], float32.
    """
    identity = json.dumps([context.checkpoint.name, context.device, [list(row) for row in rows]])
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]

    def write(folder: Path) -> None:
        embeds = task is Task.EMBED
        worker = (
            load_fp32(context.checkpoint, context.threads, context.device) if embeds else load_reranker_fp32(context)
        )
        try:
            np.save(folder / _FILES[task], worker.embed(rows, 1))
        finally:
            worker.stop()

    outputs: Vectors = np.load(write_once(context.cache / "references" / key, write) / _FILES[task])
    return outputs
