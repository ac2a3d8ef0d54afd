"""Run a written model with ONNX Runtime."""

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
    """An ONNX Runtime session on a written graph, with the inputs that Triton would pass."""

    def __init__(
        self,
        file: Path,
        threads: int = 0,
        cuda: Mapping[str, str] | None = None,
        description: str = RUNTIME_NAME,
        *,
        maps_weights: bool = False,
    ) -> None:
        """Open the .onnx `file`.

        Args:
            file: The graph.
            threads: Intra-op threads; 0 uses all cores.
            cuda: Options of the CUDA provider; None runs on the CPU.
            description: Description of the runtime for reports.
            maps_weights: Use the weights where they are in the file instead of copies in the order that the CPU's
                kernels prefer: slower, but the system can drop their pages from memory and read them again.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if maps_weights:
            options.add_session_config_entry("session.disable_prepacking", "1")
        providers = [CPU_PROVIDER] if cuda is None else [(CUDA_PROVIDER, dict(cuda)), CPU_PROVIDER]
        self._session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        self._result = self._session.get_outputs()[0].name
        self.description = description
        """Description of the runtime for reports."""

    @property
    def on_gpu(self) -> bool:
        """Whether the session uses the CUDA provider, which ONNX Runtime drops if it cannot be loaded."""
        return CUDA_PROVIDER in self._session.get_providers()

    def run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the embeddings or scores of one batch of token ids; negative ids are padding: float32 [rows, D]."""
        (output,) = self._session.run([self._result], batch_inputs(rows))
        return np.asarray(output, dtype=np.float32)

    def run_alone(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Run each row in its own batch: float32 [rows, D]."""
        return np.concatenate([self.run([row]) for row in rows])


def gpu_available() -> bool:
    """Return whether a GPU and a CUDA build of ONNX Runtime are available; loads the CUDA libraries if so."""
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return False
    # finds the CUDA libraries that torch installs
    onnxruntime.preload_dlls()
    import torch

    return torch.cuda.is_available()


def pad_row(row: Sequence[int], left: int, right: int) -> list[int]:
    """Add `left` and `right` padding ids to `row`."""
    return [PADDING_ID] * left + list(row) + [PADDING_ID] * right
