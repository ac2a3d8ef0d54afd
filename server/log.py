"""Triton's log: a file of the caller's choice, or one without a name that vanishes with its last reader."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .errors import LocalServerError

_TAIL_LINES = 15
_LARGEST_READ = 4 << 20


class Log:
    """Written by the server's processes, read by the caller."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.file: BinaryIO
        if path is None:
            self.file = tempfile.TemporaryFile(prefix="qwen3-triton-")  # noqa: SIM115
        else:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.file = path.open("wb+")
            except OSError as exc:
                raise LocalServerError(
                    f"cannot write the log {path}: {exc.strerror}; choose another place with --log-file"
                ) from exc

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def text(self) -> str:
        """The last 4 MB; empty once the log is closed."""
        if self.file.closed:
            return ""
        # the writers share this file's position: pread leaves it alone
        descriptor = self.file.fileno()
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, _LARGEST_READ, max(0, size - _LARGEST_READ)).decode(errors="replace")

    def tail(self) -> str:
        """The last lines that say something: no tables, no blank lines."""
        lines = [line for line in self.text().splitlines() if line.strip() and line[0] not in "|+"]
        return "\n".join(lines[-_TAIL_LINES:])
