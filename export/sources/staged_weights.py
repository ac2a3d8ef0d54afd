"""Computed weights, written once to a safetensors file that all consumers read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch

from .weights import LazyTensor, read_safetensors

_ALIGNMENT = 8


class StagedWeights:
    """A safetensors file of float32 tensors that is written one tensor at a time, in any order.

    The file is allocated from the shapes, so only one tensor is in memory.
    """

    def __init__(self, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        header: dict[str, object] = {}
        self._starts: dict[str, int] = {}
        end = 0
        for name, shape in shapes.items():
            start, end = end, end + 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
            self._starts[name] = start
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        self._data = 8 + len(text)
        self._shapes = dict(shapes)
        self._missing = set(shapes)
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        self._handle = file.open("wb")
        self._handle.write(len(text).to_bytes(8, "little") + text)
        self._handle.truncate(self._data + end)

    def __enter__(self) -> StagedWeights:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._handle.close()

    def write(self, name: str, values: torch.Tensor) -> None:
        """Write one tensor, converted to float32; raise ValueError if its shape is not the declared one."""
        if tuple(values.shape) != self._shapes[name]:
            raise ValueError(f"{name} has shape {list(values.shape)}, declared was {list(self._shapes[name])}")
        self._write_at(self._starts[name], values)
        self._missing.discard(name)

    def write_parts(self, name: str, tensor: LazyTensor) -> None:
        """Write `tensor` with only some of its rows in memory."""
        start = self._starts[name]
        for part in tensor.fp32_parts():
            self._write_at(start, part)
            start += part.nbytes
        self._missing.discard(name)

    def _write_at(self, start: int, values: torch.Tensor) -> None:
        self._handle.seek(self._data + start)
        self._handle.write(values.to(torch.float32).contiguous().numpy().data.cast("B"))

    def read(self) -> dict[str, LazyTensor]:
        """Return the tensors, read lazily from the file; raise ValueError if one was not written."""
        if self._missing:
            raise ValueError(f"tensors were not written: {', '.join(sorted(self._missing))}")
        self._handle.flush()
        return read_safetensors(self._file.parent, self._file.name)
