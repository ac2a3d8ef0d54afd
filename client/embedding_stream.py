"""Embeddings of any number of texts, in their order, while the rest is still being computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from .embedding_call import EmbeddingCall
from .errors import InvalidInputError, ServerError
from .lost_rows import ExpectedOutput
from .messages import read_output
from .replies import RowReply, finish_results
from .requests import RowRequest
from .vectors import truncate_vectors


@dataclass(slots=True, eq=False)
class _Window:
    """Consecutive texts that are sorted by length and packed together."""

    call: EmbeddingCall
    vectors: NDArray[np.float32]
    """`[texts, dim]`"""
    has_arrived: NDArray[np.bool_]
    """`[texts]`"""
    is_valid: NDArray[np.bool_]
    """`[texts]`, False for rows of NaN."""

    def finish(self, count: int) -> NDArray[np.float32]:
        """Return the vectors of the first `count` texts; raise InvalidInputError for NaN unless the call allows it."""
        call = self.call
        return finish_results(self.vectors[:count], self.is_valid[:count], call.texts, "embedding", call.errors)


def check_windows(texts: Iterable[str], window_texts: int) -> None:
    """Raise InvalidInputError if a stream cannot have these arguments."""
    if isinstance(texts, str | bytes):
        raise InvalidInputError("texts is a single string, expected an iterable of strings: wrap it in [ ]")
    if window_texts < 1:
        raise InvalidInputError(f"window_texts is {window_texts}; it must be at least 1")


class EmbeddingStream:
    """One pass over an iterable of texts: its requests, and the vectors from their replies.

    Holds the texts and vectors of the windows that are being computed, and nothing else.
    """

    def __init__(
        self,
        texts: Iterable[str],
        prepare: Callable[[list[str], int], EmbeddingCall],
        output: ExpectedOutput,
        window_texts: int,
    ) -> None:
        """Create a stream.

        Args:
            texts: The texts, read as they are needed.
            prepare: Prepares the call for a list of texts; its second argument is the position of the first one.
            output: Output tensor of the replies.
            window_texts: Texts of one window.
        """
        self.output = output
        self._texts = iter(texts)
        self._prepare = prepare
        self._size = window_texts
        self._windows: dict[int, _Window] = {}
        self._next = 0

    def requests(self) -> Iterator[RowRequest]:
        """Yield requests with positions in the whole input; a window is read when its first request is needed."""
        start = 0
        while texts := list(islice(self._texts, self._size)):
            call = self._prepare(texts, start)
            self._windows[start // self._size] = _Window(
                call=call,
                vectors=np.empty((len(texts), call.dim), np.float32),
                has_arrived=np.zeros(len(texts), np.bool_),
                is_valid=np.zeros(len(texts), np.bool_),
            )
            for request in call.requests:
                yield RowRequest(request.positions + start, request.input_ids)
            start += self._size

    def collect(self, replies: Iterable[RowReply]) -> Iterator[NDArray[np.float32]]:
        """Yield float32 `[window, dim]` vectors in the order of the texts.

        Raises:
            InvalidInputError: A row is NaN, and the call does not allow it.
            ServerError: Raised by `replies`, after the vectors that have no gap before them.
        """
        try:
            for reply in replies:
                self._add(reply)
                yield from self._finished()
        except ServerError:
            yield from self._leading()
            raise

    def _add(self, reply: RowReply) -> None:
        positions = reply.request.positions
        window = self._windows[int(positions[0]) // self._size]
        rows = positions % self._size
        vectors = read_output(reply.response, self.output.name, (len(rows), self.output.width))
        window.vectors[rows] = truncate_vectors(vectors, window.call.dim)
        window.is_valid[rows] = np.isfinite(vectors.sum(axis=1))
        window.has_arrived[rows] = ~self.output.find_lost(reply)

    def _finished(self) -> Iterator[NDArray[np.float32]]:
        while (window := self._windows.get(self._next)) is not None and window.has_arrived.all():
            del self._windows[self._next]
            self._next += 1
            yield window.finish(len(window.vectors))

    def _leading(self) -> Iterator[NDArray[np.float32]]:
        window = self._windows.get(self._next)
        if window is not None:
            count = int(np.logical_and.accumulate(window.has_arrived & window.is_valid).sum())
            if count:
                yield window.finish(count)
