"""The server that tests of several modules share; `conftest.py` starts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwen3_triton.server import TritonServer

SERVED_MAX_TOKENS = 320


@dataclass(frozen=True, slots=True)
class ServedDemo:
    """A running server with `embedder`, `reranker-fp32` and `reranker-fp16`, for rows of up to SERVED_MAX_TOKENS."""

    server: TritonServer
    repository: Path
    """A folder of the name `model_repository`."""
