"""Messages between the benchmark and its workers, pickled over the worker's standard input and output."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsRequest:
    """A request to embed texts in one call of a client, or only to tokenize them."""

    texts: Sequence[str]
    tokenize_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesRequest:
    """A request to compute batches of padded token ids, int64 [rows, width], one after the other."""

    batches: Sequence[NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of a `TextsRequest` or `BatchesRequest`; CPU time of all threads."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnsRequest:
    """A request to embed lists of texts, one call each, in turns with tokenizing the same lists."""

    calls: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """CPU seconds of all threads in each turn."""

    calls_s: tuple[float, ...]
    tokenizations_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """A request to embed one text a call, round-robin, with a fixed concurrency."""

    texts: Sequence[str]
    in_flight: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """Columns of requests, as in `record.Requests`."""

    start_s: tuple[float, ...]
    latency_s: tuple[float, ...]
    text_index: tuple[int | None, ...]
    error: tuple[str | None, ...]


Message = (
    Ready
    | Failure
    | WorkRequest
    | WorkResult
    | TextsRequest
    | BatchesRequest
    | Timed
    | TurnsRequest
    | Turns
    | LoadRequest
    | LoadResult
)
MessageT = TypeVar("MessageT")


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


def require(message: Message, kind: type[MessageT]) -> MessageT:
    """Return `message`; raise TypeError if it is of another kind."""
    if not isinstance(message, kind):
        raise TypeError(f"unexpected message {type(message).__name__}")
    return message
