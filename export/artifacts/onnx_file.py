"""Writes an ONNX model with its weights beside it, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

INLINE_BYTES = 1024
"""Smaller tensors stay inside the .onnx file, so that shape constants can be folded at load."""


def write_onnx(model: ir.Model, file: Path, on_tensor: Callable[[int, int], None]) -> None:
    """Writes `file` and `<file>.data`; `on_tensor` hears how many of how many tensors are written."""

    def report(_tensor: ir.TensorProtocol, info: ir.external_data.CallbackInfo) -> None:
        on_tensor(info.index + 1, info.total)

    ir.save(model, file, external_data=f"{file.name}.data", size_threshold_bytes=INLINE_BYTES, callback=report)
