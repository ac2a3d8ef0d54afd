"""Named tensors that are read lazily."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ...client.manifest.input_files import describe_error, require_regular
from ..errors import SourceError, UnsupportedCheckpointError, list_keys

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types of weights, by their names in safetensors."""
CODES = {"F8_E4M3": torch.float8_e4m3fn, "I8": torch.int8, "I32": torch.int32, "I64": torch.int64}
"""Types of the codes, zero points and shapes of quantized weights."""
_PART = 1 << 20
"""Values of a part of a tensor: 4 MB in fp32, which stay in the processor's cache from reading to rounding."""
_NAN_BITS = {
    torch.bfloat16: (torch.int16, 0x7F80),
    torch.float16: (torch.int16, 0x7C00),
    torch.float8_e4m3fn: (torch.uint8, 0x7F),
}
"""Type → integer type of the same size, and the bits that are all set in NaN and infinity."""
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor of known shape whose values are read or computed by `load`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]
    load_rows: Callable[[Sequence[int]], torch.Tensor] | None = None
    """Reads some rows without the others; None if that is not possible."""

    def fp32(self) -> torch.Tensor:
        """Return the values as float32, converted in parts if rows can be read without the others."""
        if self.load_rows is None or math.prod(self.shape) <= _PART:
            return self.load().to(torch.float32)
        # NumPy's memory has large pages
        values = torch.from_numpy(np.empty(self.shape, np.float32))
        first = 0
        for part in self.fp32_parts():
            values[first : first + len(part)] = part
            first += len(part)
        return values

    def rows(self, rows: Sequence[int]) -> torch.Tensor:
        """Return `rows` [rows, ...], in the given order."""
        return self.load()[list(rows)] if self.load_rows is None else self.load_rows(rows)

    def fp32_rows(self, rows: Sequence[int]) -> torch.Tensor:
        """Return `rows` as float32 [rows, ...], in the given order."""
        return self.rows(rows).to(torch.float32)

    def look_up(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows at int64 `ids` as float32 [*ids, ...]; each is read once, and no others."""
        rows, indices = np.unique(ids.numpy(), return_inverse=True)
        return self.fp32_rows(rows.tolist())[torch.from_numpy(indices.reshape(ids.shape))]

    def fp32_parts(self) -> Iterator[torch.Tensor]:
        """Yield all values as float32, some consecutive rows at a time."""
        count = max(1, _PART // math.prod(self.shape[1:]))
        if self.load_rows is None:
            yield from torch.split(self.fp32(), count)
            return
        for first in range(0, self.shape[0], count):
            yield self.fp32_rows(range(first, min(first + count, self.shape[0])))

    def norm(self) -> float:
        """Return the Frobenius norm."""
        return math.hypot(*(float(torch.linalg.vector_norm(part)) for part in self.fp32_parts()))

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor], *, by_rows: bool = False) -> LazyTensor:
        """Return a tensor of the same shape with `change` applied to the float32 values on read.

        `by_rows` says that `change` transforms each row independently of the others and of its index.
        """
        rows = (lambda rows: change(self.fp32_rows(rows))) if by_rows and self.load_rows is not None else None
        return LazyTensor(self.shape, torch.float32, lambda: change(self.fp32()), rows)


def in_memory(values: torch.Tensor) -> LazyTensor:
    """Return `values` as a LazyTensor."""
    return LazyTensor(tuple(values.shape), values.dtype, lambda: values, lambda rows: values[list(rows)])


def parts_of(tensors: Sequence[LazyTensor]) -> Iterator[torch.Tensor]:
    """Yield the rows of concatenated tensors as float32, some at a time."""
    for tensor in tensors:
        yield from tensor.fp32_parts()


Weights = Mapping[str, LazyTensor]
"""Tensor name → tensor. Passes are functions from one to another."""


def remove_wrappers(name: str) -> str:
    """Return a tensor's name without the prefixes that torch.compile, FSDP and checkpointing give to modules."""
    for wrapper in ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."):
        name = name.replace(wrapper, "")
    return name


def read_safetensors(directory: Path, pattern: str, types: Mapping[str, torch.dtype] = FLOATS) -> dict[str, LazyTensor]:
    """Return the tensors of all safetensors files in `directory` that match `pattern`, read lazily.

    Args:
        directory: Folder of the files.
        pattern: Glob of their names.
        types: Types that tensors may have.

    Raises:
        SourceError: There is no such file, or one cannot be read.
        UnsupportedCheckpointError: Weights are pickled, a name is duplicate, or a tensor has another type.
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
        for name, tensor in _read_file(file, types).items():
            if name in tensors:
                raise UnsupportedCheckpointError(f"{directory}: tensor '{name}' is in two files")
            tensors[name] = tensor
    return tensors


def _read_file(file: Path, types: Mapping[str, torch.dtype]) -> dict[str, LazyTensor]:
    tensors = {}
    try:
        require_regular(file)
    except OSError as exc:
        raise SourceError(f"{file}: not readable as safetensors ({describe_error(exc)})") from exc
    try:
        # checks sizes, offsets and the end of the file
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
        header, data = _read_header(file)
    except (SafetensorError, OSError) as exc:
        raise SourceError(f"{file}: not readable as safetensors ({exc}); is the download complete?") from exc
    for name in names:
        entry = header[name]
        dtype = types.get(entry["dtype"])
        if dtype is None:
            raise UnsupportedCheckpointError(
                f"{file}: tensor '{name}' is {entry['dtype']}; only F32, F16 and BF16 are supported"
            )
        stored = _StoredTensor(file, name, tuple(entry["shape"]), dtype, data + entry["data_offsets"][0])
        tensors[name] = LazyTensor(stored.shape, dtype, stored.load, stored.load_rows)
    return tensors


def _read_header(file: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file and the offset of its data."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        return json.loads(opened.read(length)), 8 + length


@dataclass(frozen=True, slots=True)
class _StoredTensor:
    """A tensor in a file. It is read instead of mapped, because mapped pages count as memory of the process."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    """Of the first byte in the file."""

    def load(self) -> torch.Tensor:
        return self._read([0], self.shape)

    def load_rows(self, rows: Sequence[int]) -> torch.Tensor:
        starts = rows[:1] if isinstance(rows, range) and rows.step == 1 else rows
        return self._read(starts, (len(rows), *self.shape[1:]))

    def _read(self, starts: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
        """Read `shape` values: as many parts of equal size as there are `starts`, the rows where they begin."""
        values = torch.empty(shape, dtype=self.dtype)
        if values.numel() == 0:
            return values
        target = values.reshape(-1).view(torch.uint8).numpy().data
        size, row_bytes = len(target) // len(starts), self.dtype.itemsize * math.prod(self.shape[1:])
        try:
            with self.file.open("rb", buffering=0) as opened:
                for index, row in enumerate(starts):
                    opened.seek(self.offset + row * row_bytes)
                    self._fill(target[index * size : (index + 1) * size], opened)
        except OSError as exc:
            raise SourceError(f"{self.file}: tensor '{self.name}' is not readable ({describe_error(exc)})") from exc
        return self._require_finite(values)

    def _fill(self, target: memoryview, opened: RawIOBase) -> None:
        filled = 0
        while filled < len(target):
            count = opened.readinto(target[filled:])
            if not count:
                raise SourceError(f"{self.file}: ends within tensor '{self.name}'; was it changed meanwhile?")
            filled += count

    def _require_finite(self, values: torch.Tensor) -> torch.Tensor:
        if not _is_finite(values):
            raise SourceError(
                f"{self.file}: tensor '{self.name}' has NaN or infinite values; is the checkpoint damaged?"
            )
        return values


def _is_finite(values: torch.Tensor) -> bool:
    if values.dtype in _NAN_BITS:
        integer, bits = _NAN_BITS[values.dtype]
        return int((values.view(integer) & bits).max()) != bits
    if not values.dtype.is_floating_point:
        return True
    return all(bool(limit.isfinite()) for limit in values.aminmax())


def reject_pickled(directory: Path, pickled: str, target: str) -> None:
    """Raise UnsupportedCheckpointError, with the command that converts it, if there is `pickled` without `target`."""
    if (directory / pickled).exists() and not (directory / target).exists():
        raise UnsupportedCheckpointError(
            f"{directory}: only pickled weights ({pickled}), which can run code when read; convert them: "
            + convert_command(directory, pickled, target)
        )


def convert_command(directory: Path, pickled: str, target: str) -> str:
    """Return the shell command that writes pickled weights as safetensors, without running code in them.

    `pickled` and `target` are names of files in `directory`.
    """
    code = (
        "import torch; from safetensors.torch import save_file; "
        f"found = torch.load('{pickled}', map_location='cpu', weights_only=True); "
        f"save_file({{name: found[name].clone().contiguous() for name in found}}, '{target}')"
    )
    return f'cd {shlex.quote(str(directory))} && python -c "{code}"'


def hash_files(files: list[Path]) -> str:
    """Return the SHA-256, in hex, of the SHA-256 digests of `files` in the order of their names."""
    combined = hashlib.sha256()
    for file in sorted(files, key=lambda path: path.name):
        with file.open("rb") as opened:
            combined.update(hashlib.file_digest(opened, "sha256").digest())
    return combined.hexdigest()
