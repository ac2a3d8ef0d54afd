"""Output of vectors as they arrive: to standard output, or to a file that appears when it is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import typer

from qwen3_triton.client.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
NPY_SUFFIX = ".npy"


class VectorOutput(Protocol):
    """Where vectors go, in order."""

    done: int
    """Rows that are already there."""

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Write float32 `[rows, dim]`."""

    def finish(self) -> None:
        """Complete the output."""

    def abandon(self) -> str | None:
        """Stop writing, and return what the user can do with the rows that were written; None if there are none."""


class StandardOutput:
    """JSON lines on standard output."""

    def __init__(self) -> None:
        self.done = 0

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Print one line for each row."""
        for line in _json_lines(vectors):
            typer.echo(line)
        self.done += len(vectors)

    def finish(self) -> None:
        """Do nothing, as every line has been printed."""

    def abandon(self) -> str | None:
        """Return how many lines are complete."""
        return f"{self.done:,} vectors were written" if self.done else None


class PartialFile:
    """A file beside the output, `NAME.partial`, that grows by rows and is renamed when it is complete.

    `NAME.partial.json` says what the rows belong to, so that a run with other texts or another model cannot continue
    them.
    """

    def __init__(self, file: Path, rows: int, dim: int, identity: Mapping[str, object], *, resume: bool) -> None:
        """Open the partial file.

        Args:
            file: The output, `.npy` or JSON lines.
            rows: Rows of the complete output.
            dim: Components of a vector.
            identity: JSON object of everything that the vectors depend on.
            resume: Whether to continue an earlier run.

        Raises:
            InvalidInputError: There is an unfinished file and `resume` is False, its identity is another one, or a
                file cannot be written.
        """
        self._file = file
        self._partial = file.with_name(f"{file.name}.partial")
        self._identity = file.with_name(f"{file.name}.partial.json")
        self._rows, self._dim = rows, dim
        self._stream: BinaryIO | None = None
        self.done = 0
        try:
            self._open(dict(identity), resume)
        except OSError as exc:
            raise self._cannot_write(exc) from exc

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Append rows; raise InvalidInputError if they cannot be written."""
        assert self._stream is not None
        try:
            if self._file.suffix == NPY_SUFFIX:
                self._stream.write(vectors.astype("<f4", copy=False).tobytes())
            else:
                self._stream.writelines(line.encode() + b"\n" for line in _json_lines(vectors))
            self._stream.flush()
        except OSError as exc:
            raise self._cannot_write(exc) from exc
        self.done += len(vectors)

    def finish(self) -> None:
        """Rename the file to its final name; raise InvalidInputError if that fails."""
        assert self._stream is not None
        try:
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._partial.replace(self._file)
            self._identity.unlink(missing_ok=True)
        except OSError as exc:
            raise self._cannot_write(exc) from exc

    def abandon(self) -> str | None:
        """Close the files, and remove them if they have no rows."""
        if self._stream is not None:
            # the error that ended the run is the one to report
            with suppress(OSError):
                self._stream.close()
        if self.done:
            return (
                f"{self.done:,} of {self._rows:,} vectors are in {self._partial}: run again with --resume to continue"
            )
        self._partial.unlink(missing_ok=True)
        self._identity.unlink(missing_ok=True)
        return None

    def _open(self, identity: dict[str, Any], resume: bool) -> None:
        if self._partial.exists():
            if not resume:
                raise InvalidInputError(
                    f"--output: {self._partial} has vectors of an unfinished run: add --resume to continue it, or "
                    "delete the file"
                )
            earlier = self._read_identity()
            changed = sorted(key for key in identity if earlier.get(key) != identity[key])
            if changed:
                raise InvalidInputError(
                    f"--resume: {self._partial} was written with another {', '.join(changed)}: delete it to start anew"
                )
            self._stream = self._partial.open("r+b")
            self.done = self._keep_whole_rows(self._stream)
            return
        self._identity.write_text(json.dumps(identity), encoding="utf-8")
        self._stream = self._partial.open("wb")
        if self._file.suffix == NPY_SUFFIX:
            self._write_header(self._stream)
            self._stream.flush()

    def _read_identity(self) -> dict[str, Any]:
        try:
            value = json.loads(self._identity.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            value = None
        return value if isinstance(value, dict) else {}

    def _write_header(self, stream: BinaryIO) -> None:
        from numpy.lib import format as npy

        npy.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._dim)})

    def _keep_whole_rows(self, stream: BinaryIO) -> int:
        """Cut off a row that was not written completely, and return the number of rows."""
        if self._file.suffix == NPY_SUFFIX:
            stream.seek(0)
            self._write_header(stream)
            header = stream.tell()
            row = 4 * self._dim
            rows = max(0, stream.seek(0, os.SEEK_END) - header) // row
            end = header + rows * row
        else:
            rows = end = 0
            for line in stream:
                if line.endswith(b"\n"):
                    rows += 1
                    end += len(line)
        stream.truncate(end)
        stream.seek(end)
        return rows

    def _cannot_write(self, error: OSError) -> InvalidInputError:
        return InvalidInputError(f"--output: cannot write {self._file}: {error.strerror or error}")


def check_output_name(file: Path) -> None:
    """Raise InvalidInputError unless the name of `file` ends with the suffix of a format that can be written."""
    if file.suffix != NPY_SUFFIX and file.suffix not in JSON_LINES_SUFFIXES:
        raise InvalidInputError(
            f"--output: {file} is neither {NPY_SUFFIX} (float32 array) nor {' or '.join(JSON_LINES_SUFFIXES)} "
            "(JSON lines): use one of these suffixes"
        )


def _json_lines(vectors: NDArray[np.float32]) -> Iterator[str]:
    """Yield each row as a JSON array, with the shortest numbers that round-trip to the same float32."""
    for row in vectors:
        yield "[" + ", ".join(map(str, row)) + "]"
