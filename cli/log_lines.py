"""Warnings of the package's loggers on stderr, one line each."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = "qwen3_triton"


class _StderrLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Write a record to the present stderr, which a progress bar may have replaced."""
        try:
            sys.stderr.write(f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}\n")
        except OSError:
            self.handleError(record)


@contextmanager
def show_warnings() -> Iterator[None]:
    """Show warnings and errors that the package logs, as long as the context lasts."""
    logger, handler = logging.getLogger(_PACKAGE), _StderrLines(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
