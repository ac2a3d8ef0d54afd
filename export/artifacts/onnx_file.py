"""Write an ONNX model with external data, a few tensors in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import onnx_ir as ir

from ..threads import one_thread_per_operator

INLINE_BYTES = 1024
"""Smaller tensors are stored in the .onnx file, so that ONNX Runtime can fold shape constants at load."""
WRITERS = min(4, os.cpu_count() or 1)
"""Tensors that are written at the same time, at most."""
_BYTES_IN_FLIGHT = 256 << 20
"""Most bytes of the tensors that are written at the same time, unless one is larger."""


def write_onnx(model: ir.Model, file: Path, on_tensor: Callable[[int, int], None]) -> None:
    """Write `file` and `<file>.data`; `on_tensor(written, total)` is called after each tensor.

    Raises what reading a weight raises.
    """
    written = count(1)

    def report(_tensor: ir.TensorProtocol, info: ir.external_data.CallbackInfo) -> None:
        on_tensor(next(written), info.total)

    with one_thread_per_operator(), _errors_of_weights():
        ir.save(
            model,
            file,
            external_data=f"{file.name}.data",
            size_threshold_bytes=INLINE_BYTES,
            callback=report,
            max_workers=WRITERS,
            max_in_flight_bytes=_BYTES_IN_FLIGHT,
        )


@contextmanager
def _errors_of_weights() -> Iterator[None]:
    """Raise the error of a weight in place of those that wrap it if the weight is stored in the .onnx file."""
    try:
        yield
    except ir.serde.SerdeError as exc:
        cause: BaseException = exc
        while isinstance(cause, ir.serde.SerdeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause from None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxSizes:
    """Bytes of the files that `write_onnx` writes."""

    graph: int
    data: int


def measure_onnx(model: ir.Model, name: str) -> OnnxSizes:
    """Return the sizes of the files of `model`, without reading its weights.

    The weights of `model` are replaced by references to the data of the file `name`.
    """
    end = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > INLINE_BYTES:
            shape = ir.Shape(tuple(tensor.shape.numpy()))
            location = f"{name}.data"
            value.const_value = ir.ExternalTensor(
                location, end, tensor.nbytes, tensor.dtype, shape=shape, name=value.name or ""
            )
            end += tensor.nbytes
    return OnnxSizes(graph=ir.to_proto(model).ByteSize(), data=end)
