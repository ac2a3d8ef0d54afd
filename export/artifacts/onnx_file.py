"""Write an ONNX model with external data, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

INLINE_BYTES = 1024
"""Smaller tensors are stored in the .onnx file, so that ONNX Runtime can fold shape constants at load."""


def write_onnx(model: ir.Model, file: Path, on_tensor: Callable[[int, int], None]) -> None:
    """Write `file` and `<file>.data`; `on_tensor(written, total)` is called after each tensor."""

    def report(_tensor: ir.TensorProtocol, info: ir.external_data.CallbackInfo) -> None:
        on_tensor(info.index + 1, info.total)

    ir.save(model, file, external_data=f"{file.name}.data", size_threshold_bytes=INLINE_BYTES, callback=report)
