"""Triton's log: a file chosen by the caller, or an unnamed temporary file, that can be followed line by line."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .errors import LocalServerError

_TAIL_LINES = 15
_LARGEST_READ = 4 << 20
_FOLLOW_S = 0.1


class ServerLog:
    """Log file that the server's processes write and the caller reads.

    Args:
        path: The file; None for a temporary file.
        show: Called in a separate thread with each line, until the log is closed; None to show nothing.
    """

    def __init__(self, path: Path | None, show: Callable[[str], None] | None = None) -> None:
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
                    f"cannot write the log {path}: {exc.strerror}; choose another log_file", option="log_file"
                ) from exc
        self._closing = threading.Event()
        self._follower = threading.Thread(target=self._follow, args=[show], daemon=True) if show else None
        if self._follower:
            self._follower.start()

    def __enter__(self) -> ServerLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._follower:
            self._follower.join()
        self.file.close()

    def text(self) -> str:
        """Return the last 4 MB; empty after the log was closed."""
        if self.file.closed:
            return ""
        # pread does not move the file position, which the writers share
        descriptor = self.file.fileno()
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, _LARGEST_READ, max(0, size - _LARGEST_READ)).decode(errors="replace")

    def tail(self) -> str:
        """Return the last lines, without blank lines and tables."""
        lines = [line for line in self.text().splitlines() if line.strip() and line[0] not in "|+"]
        return "\n".join(lines[-_TAIL_LINES:])

    def _follow(self, show: Callable[[str], None]) -> None:
        """Pass every line to `show`, those written before the log is closed included."""
        position, rest, closing = 0, b"", False
        while not closing:
            closing = self._closing.wait(_FOLLOW_S)
            while read := os.pread(self.file.fileno(), _LARGEST_READ, position):
                position += len(read)
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    show(line.decode(errors="replace"))
        if rest:
            show(rest.decode(errors="replace"))
