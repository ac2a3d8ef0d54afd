"""The written model, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...client.manifest import PADDING_ID
from ..batching.inputs import batch_inputs

RUNTIME_NAME = f"onnxruntime {onnxruntime.__version__}"
CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"


class WrittenModel:
    """A session on `model.onnx`, fed as Triton feeds it."""

    def __init__(
        self,
        file: Path,
        threads: int = 0,
        cuda: Mapping[str, str] | None = None,
        description: str = RUNTIME_NAME,
    ) -> None:
        """Opens the file; `cuda` are options of the CUDA provider, None keeps to the CPU."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers = [CPU_PROVIDER] if cuda is None else [(CUDA_PROVIDER, dict(cuda)), CPU_PROVIDER]
        self._session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        self.description = description
        """What runs it, for reports."""

    @property
    def on_gpu(self) -> bool:
        """Whether the session has the CUDA provider; it goes without where no GPU answers."""
        return CUDA_PROVIDER in self._session.get_providers()

    def run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """One batch: rows of ids, padding as negative ids → float32 [rows, D]."""
        (answer,) = self._session.run(None, batch_inputs(rows))
        return np.asarray(answer, dtype=np.float32)

    def run_alone(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Each row in a batch of its own: float32 [rows, D]."""
        return np.concatenate([self.run([row]) for row in rows])


def gpu_available() -> bool:
    """Whether this process has a GPU and a build of ONNX Runtime for it; loads CUDA's libraries if so."""
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return False
    # finds the libraries that came with torch
    onnxruntime.preload_dlls()
    import torch

    return torch.cuda.is_available()


def pad_row(row: Sequence[int], left: int, right: int) -> list[int]:
    """`row` with so many padding ids on either side."""
    return [PADDING_ID] * left + list(row) + [PADDING_ID] * right
