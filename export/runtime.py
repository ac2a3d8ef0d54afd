"""The written model, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..client.contract import INPUT_IDS, PADDING_ID, ROW_LENGTHS

RUNTIME_NAME = f"onnxruntime {onnxruntime.__version__}"


class WrittenModel:
    """A session on `model.onnx`, fed as Triton feeds it."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """One batch: rows of ids, padding as negative ids → float32 [rows, D]."""
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int64)
        lengths = np.asarray([len(row) for row in rows], dtype=np.int32)
        (answer,) = self._session.run(None, {INPUT_IDS: flat, ROW_LENGTHS: lengths})
        return np.asarray(answer, dtype=np.float32)

    def run_alone(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Each row in a batch of its own: float32 [rows, D]."""
        return np.concatenate([self.run([row]) for row in rows])


def pad_row(row: Sequence[int], left: int, right: int) -> list[int]:
    """`row` with so many padding ids on either side."""
    return [PADDING_ID] * left + list(row) + [PADDING_ID] * right
