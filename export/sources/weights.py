"""Named tensors that are read one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import SourceError, UnsupportedCheckpointError, list_keys

_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor whose shape is known and whose values are read by `load`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]
    load_rows: Callable[[Sequence[int]], torch.Tensor] | None = None
    """Reads some rows and no more, where that is possible."""
    stored: bool = False
    """Whether `load` reads a file; False: the values are computed each time."""

    def fp32(self) -> torch.Tensor:
        """The values as float32 of `shape`."""
        return self.load().to(torch.float32)

    def fp32_rows(self, rows: Sequence[int]) -> torch.Tensor:
        """Some rows as float32 `[rows, ...]`, in the order asked for."""
        found = self.load()[list(rows)] if self.load_rows is None else self.load_rows(rows)
        return found.to(torch.float32)

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> LazyTensor:
        """A tensor of the same shape: `change` of the float32 values, taken when it is read."""
        return LazyTensor(self.shape, torch.float32, lambda: change(self.fp32()))


def in_memory(values: torch.Tensor) -> LazyTensor:
    """Return `values` as a LazyTensor."""
    return LazyTensor(tuple(values.shape), values.dtype, lambda: values)


Weights = Mapping[str, LazyTensor]
"""Tensor name → tensor; a transformation takes one and gives another."""


def remove_wrappers(name: str) -> str:
    """Return a tensor's name without the prefix that torch.compile gives to a wrapped module."""
    return name.replace("_orig_mod.", "")


def read_safetensors(directory: Path, pattern: str) -> dict[str, LazyTensor]:
    """Every tensor of the safetensors files in `directory` that match `pattern`, unread.

    Raises SourceError where there is none, UnsupportedCheckpointError for pickled weights, for a name that
    stands twice and for a dtype other than fp32, fp16 and bf16.
    """
    files = sorted(directory.glob(pattern))
    if not files:
        pickled = sorted(found.name for glob in _PICKLED for found in directory.glob(glob))
        if pickled:
            raise UnsupportedCheckpointError(
                f"{directory}: only pickled weights ({list_keys(pickled)}), which can run code when read; "
                "save the model as safetensors first: model.save_pretrained(..., safe_serialization=True)"
            )
        raise SourceError(f"{directory}: no {pattern} file")
    tensors: dict[str, LazyTensor] = {}
    for file in files:
        for name, tensor in _read_file(file).items():
            if name in tensors:
                raise UnsupportedCheckpointError(f"{directory}: tensor '{name}' is in two files")
            tensors[name] = tensor
    return tensors


def _read_file(file: Path) -> dict[str, LazyTensor]:
    tensors = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping, only keys()
                view = opened.get_slice(name)
                dtype = _FLOATS.get(view.get_dtype())
                if dtype is None:
                    raise UnsupportedCheckpointError(
                        f"{file}: tensor '{name}' is {view.get_dtype()}; only F32, F16 and BF16 are read"
                    )
                shape = tuple(view.get_shape())
                tensors[name] = LazyTensor(shape, dtype, _reader(file, name), _row_reader(file, name), stored=True)
    except (SafetensorError, OSError) as exc:
        raise SourceError(f"{file}: not readable as safetensors ({exc}); is the download complete?") from exc
    return tensors


def _reader(file: Path, name: str) -> Callable[[], torch.Tensor]:
    def load() -> torch.Tensor:
        with safe_open(file, framework="pt") as opened:
            tensor: torch.Tensor = opened.get_tensor(name)
        return tensor

    return load


def _row_reader(file: Path, name: str) -> Callable[[Sequence[int]], torch.Tensor]:
    def load_rows(rows: Sequence[int]) -> torch.Tensor:
        with safe_open(file, framework="pt") as opened:
            view = opened.get_slice(name)
            return torch.cat([view[row : row + 1] for row in rows])

    return load_rows


def hash_files(files: list[Path]) -> str:
    """SHA-256 over the SHA-256 digests of `files` in the order of their names, as hex."""
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda path: path.name):
        with file.open("rb") as opened:
            whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.hexdigest()
