"""Output of vectors as they arrive: to standard output, or to a file that appears when it is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import typer

from qwen3_triton.client.errors import InvalidInputError

from .vector_formats import VectorFormat, json_lines
from .write_errors import explain_write_error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
        for line in json_lines(vectors):
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

    def __init__(
        self, file: Path, rows: int, vector_format: VectorFormat, identity: Mapping[str, object], *, resume: bool
    ) -> None:
        """Open the partial file.

        Args:
            file: The output.
            rows: Rows of the complete output.
            vector_format: Format of the output.
            identity: JSON object of everything that the vectors depend on.
            resume: Whether to continue an earlier run.

        Raises:
            InvalidInputError: There is an unfinished file and `resume` is False, its identity is another one, or a
                file cannot be written.
        """
        self._file = file
        self._partial = file.with_name(f"{file.name}.partial")
        self._identity = file.with_name(f"{file.name}.partial.json")
        self._rows = rows
        self._format = vector_format
        self.done = 0
        try:
            self._stream = self._continue(identity, resume) if self._partial.exists() else self._create(identity)
        except OSError as exc:
            raise self._cannot_write(exc) from exc

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Append rows; raise InvalidInputError if they cannot be written."""
        try:
            self._format.write_rows(self._stream, vectors)
            self._stream.flush()
        except OSError as exc:
            raise self._cannot_write(exc) from exc
        self.done += len(vectors)

    def finish(self) -> None:
        """Rename the file to its final name; raise InvalidInputError if that fails."""
        try:
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._partial.replace(self._file)
            self._identity.unlink(missing_ok=True)
        except OSError as exc:
            raise self._cannot_write(exc) from exc

    def abandon(self) -> str | None:
        """Close the files, and remove them if they have no rows."""
        # the error that ended the run is the one to report
        with suppress(OSError):
            self._stream.close()
        if self.done:
            return (
                f"{self.done:,} of {self._rows:,} vectors are in {self._partial}: run again with --resume to continue"
            )
        self._remove()
        return None

    def _remove(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._identity.unlink(missing_ok=True)

    def _create(self, identity: Mapping[str, object]) -> BinaryIO:
        try:
            self._identity.write_text(json.dumps(identity), encoding="utf-8")
            stream = self._partial.open("wb")
            self._format.write_header(stream)
            stream.flush()
        except OSError:
            self._remove()
            raise
        return stream

    def _continue(self, identity: Mapping[str, object], resume: bool) -> BinaryIO:
        if not resume:
            raise InvalidInputError(
                f"--output: {self._partial} has vectors of an unfinished run: add --resume to continue it, or delete "
                "the file"
            )
        earlier = self._read_identity()
        changed = sorted(key for key in identity if earlier.get(key) != identity[key])
        if changed:
            raise InvalidInputError(
                f"--resume: {self._partial} was written with another {', '.join(changed)}: delete it to start anew"
            )
        stream = self._partial.open("r+b")
        self.done = self._format.skip_rows(stream)
        # a row that was not written completely
        stream.truncate()
        return stream

    def _read_identity(self) -> dict[str, Any]:
        try:
            value = json.loads(self._identity.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            value = None
        return value if isinstance(value, dict) else {}

    def _cannot_write(self, error: OSError) -> InvalidInputError:
        return InvalidInputError(f"--output: cannot write {self._file}: {explain_write_error(error)}")
