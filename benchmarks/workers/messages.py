"""Messages between the benchmark and its workers, pickled over the worker's standard input and output."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ..rows import Rows, Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The program is loaded."""

    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The program could not be loaded, or a request failed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRequest:
    """A request to embed `rows` in batches of `batch_rows`, `passes` times."""

    rows: Rows
    batch_rows: int
    passes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkResult:
    """The vectors of the last pass, [n, hidden], and the time of every pass in seconds."""

    vectors: Vectors
    walls_s: tuple[float, ...]
    cpus_s: tuple[float, ...]
    """CPU time of all threads of the worker."""


Message = Ready | Failure | WorkRequest | WorkResult


def send(stream: BinaryIO, message: Message) -> None:
    """Write one message."""
    pickle.dump(message, stream)
    stream.flush()


def receive(stream: BinaryIO) -> Message:
    """Read one message.

    Raises:
        EOFError: if the other process has closed the stream.
        TypeError: if the object is not a message.
    """
    message = pickle.load(stream)
    if not isinstance(message, Message):
        raise TypeError(f"{type(message).__name__} is not a message")
    return message
