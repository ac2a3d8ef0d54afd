"""What a benchmark and its workers say to each other: pickles over the worker's standard input and output."""

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
class Failed:
    """Why it is not, or why a request was not answered."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Embed `rows`, `batch_rows` of them at a time, `passes` times over."""

    rows: Rows
    batch_rows: int
    passes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The last pass's vectors [n, hidden], and seconds of every pass."""

    vectors: Vectors
    walls_s: tuple[float, ...]
    cpus_s: tuple[float, ...]
    """Processor time of all of the worker's threads."""


Message = Ready | Failed | Work | Done


def send(stream: BinaryIO, message: Message) -> None:
    """Writes one message."""
    pickle.dump(message, stream)
    stream.flush()


def receive(stream: BinaryIO) -> Message:
    """The next message; raises EOFError where the other side has gone."""
    message = pickle.load(stream)
    if not isinstance(message, Message):
        raise TypeError(f"{type(message).__name__} is no message")
    return message
