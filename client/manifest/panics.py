"""Panics of libraries written in Rust, such as tokenizers.

Python sees a panic as an exception that is not an `Exception`, of a class that cannot be imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_CLASS = "PanicException"


class PanicError(RuntimeError):
    """A library written in Rust panicked."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise PanicError in place of a panic in the block."""
    try:
        yield
    except BaseException as exc:
        if type(exc).__name__ != _CLASS:
            raise
        raise PanicError(str(exc)) from exc
