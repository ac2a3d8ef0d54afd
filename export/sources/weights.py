"""Named tensors that are read lazily."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ...client.manifest.input_files import describe_error, require_regular
from ..errors import SourceError, UnsupportedCheckpointError, list_keys

_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor of known shape whose values are read or computed by `load`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]
    load_rows: Callable[[Sequence[int]], torch.Tensor] | None = None
    """Reads some rows without the others; None if that is not possible."""
    stored: bool = False
    """Whether `load` reads a file, instead of computing the values each time."""

    def fp32(self) -> torch.Tensor:
        """Return the values as float32."""
        return self.load().to(torch.float32)

    def fp32_rows(self, rows: Sequence[int]) -> torch.Tensor:
        """Return `rows` as float32 [rows, ...], in the given order."""
        values = self.load()[list(rows)] if self.load_rows is None else self.load_rows(rows)
        return values.to(torch.float32)

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> LazyTensor:
        """Return a tensor of the same shape with `change` applied to the float32 values on read."""
        return LazyTensor(self.shape, torch.float32, lambda: change(self.fp32()))


def in_memory(values: torch.Tensor) -> LazyTensor:
    """Return `values` as a LazyTensor."""
    return LazyTensor(tuple(values.shape), values.dtype, lambda: values)


Weights = Mapping[str, LazyTensor]
"""Tensor name → tensor. Passes are functions from one to another."""


def remove_wrappers(name: str) -> str:
    """Return a tensor's name without the prefixes that torch.compile, FSDP and checkpointing give to modules."""
    for wrapper in ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."):
        name = name.replace(wrapper, "")
    return name


def read_safetensors(directory: Path, pattern: str) -> dict[str, LazyTensor]:
    """Return the tensors of all safetensors files in `directory` that match `pattern`, read lazily.

    Raises:
        SourceError: There is no such file, or one cannot be read.
        UnsupportedCheckpointError: Weights are pickled, a name is duplicate, or a dtype is not fp32, fp16 or bf16.
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
        require_regular(file)
    except OSError as exc:
        raise SourceError(f"{file}: not readable as safetensors ({describe_error(exc)})") from exc
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping, has only keys()
                view = opened.get_slice(name)
                dtype = _FLOATS.get(view.get_dtype())
                if dtype is None:
                    raise UnsupportedCheckpointError(
                        f"{file}: tensor '{name}' is {view.get_dtype()}; only F32, F16 and BF16 are supported"
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
    """Return the SHA-256, in hex, of the SHA-256 digests of `files` in the order of their names."""
    combined = hashlib.sha256()
    for file in sorted(files, key=lambda path: path.name):
        with file.open("rb") as opened:
            combined.update(hashlib.file_digest(opened, "sha256").digest())
    return combined.hexdigest()
