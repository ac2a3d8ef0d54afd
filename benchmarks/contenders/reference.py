"""The truth that every contender is held against: transformers in fp32, each row alone and unpadded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from qwen3_triton.client.manifest import Task

from ..rows import Rows, Vectors
from ..staging import written_once
from .contender import Bench
from .transformers_model import load_fp32
from .transformers_reranker import load_reranker_fp32

_FILES = {Task.EMBED: "vectors.npy", Task.RERANK: "scores.npy"}


def reference_answers(bench: Bench, rows: Rows, task: Task) -> Vectors:
    """Vectors [n, hidden] or scores [n, 1], float32, computed where they are not in the cache yet."""
    described = json.dumps([bench.checkpoint.name, bench.device, [list(row) for row in rows]])
    key = hashlib.sha256(described.encode()).hexdigest()[:12]

    def write(folder: Path) -> None:
        embeds = task is Task.EMBED
        worker = load_fp32(bench.checkpoint, bench.threads, bench.device) if embeds else load_reranker_fp32(bench)
        try:
            np.save(folder / _FILES[task], worker.embed(rows, 1))
        finally:
            worker.stop()

    answers: Vectors = np.load(written_once(bench.cache / "references" / key, write) / _FILES[task])
    return answers
