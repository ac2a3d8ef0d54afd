"""File formats of vectors that can be written, and continued, row by row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from qwen3_triton.client.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class VectorFormat(Protocol):
    """Encoding of float32 `[rows, dim]` in a file."""

    def write_header(self, stream: BinaryIO) -> None:
        """Write what precedes the first row."""

    def write_rows(self, stream: BinaryIO, vectors: NDArray[np.float32]) -> None:
        """Append float32 `[rows, dim]`."""

    def skip_rows(self, stream: BinaryIO) -> int:
        """Move from the start of a file to the end of its last complete row, and return the number of rows."""


@dataclass(frozen=True, slots=True)
class NpyFormat:
    """NumPy's `.npy`, a little-endian float32 array `[rows, dim]`."""

    rows: int
    """Rows of the complete array, which the header states from the beginning."""
    dim: int

    def write_header(self, stream: BinaryIO) -> None:
        """Write the header of the complete array."""
        from numpy.lib import format as npy

        npy.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.dim)})

    def write_rows(self, stream: BinaryIO, vectors: NDArray[np.float32]) -> None:
        """Append the bytes of the rows."""
        stream.write(vectors.astype("<f4", copy=False).tobytes())

    def skip_rows(self, stream: BinaryIO) -> int:
        """Write the header again, in case it is incomplete, and move past the last complete row."""
        self.write_header(stream)
        start, row = stream.tell(), 4 * self.dim
        rows = (stream.seek(0, os.SEEK_END) - start) // row
        stream.seek(start + rows * row)
        return rows


@dataclass(frozen=True, slots=True)
class JsonLinesFormat:
    """One JSON array per line."""

    def write_header(self, stream: BinaryIO) -> None:
        """Write nothing."""

    def write_rows(self, stream: BinaryIO, vectors: NDArray[np.float32]) -> None:
        """Append a line for each row."""
        stream.writelines(line.encode() + b"\n" for line in json_lines(vectors))

    def skip_rows(self, stream: BinaryIO) -> int:
        """Move past the last complete line."""
        rows = end = 0
        for line in stream:
            if line.endswith(b"\n"):
                rows += 1
                end += len(line)
        stream.seek(end)
        return rows


def check_format(file: Path) -> None:
    """Raise InvalidInputError unless the name of `file` ends with the suffix of a format."""
    choose_format(file, rows=0, dim=1)


def choose_format(file: Path, rows: int, dim: int) -> VectorFormat:
    """Return the format of `file`, for `rows` vectors of `dim` components, by the suffix of its name.

    Raises:
        InvalidInputError: There is no format with this suffix.
    """
    if file.suffix == ".npy":
        return NpyFormat(rows, dim)
    if file.suffix in (".jsonl", ".ndjson"):
        return JsonLinesFormat()
    raise InvalidInputError(
        f"--output: {file} is neither .npy (float32 array) nor .jsonl or .ndjson (JSON lines): use one of these "
        "suffixes"
    )


def json_lines(vectors: NDArray[np.float32]) -> Iterator[str]:
    """Yield each row as a JSON array, with the shortest numbers that round-trip to the same float32."""
    for row in vectors:
        yield "[" + ", ".join(map(str, row)) + "]"
