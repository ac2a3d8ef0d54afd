"""Embeddings of any number of texts, in their order, while the rest is still being computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from .call_counts import CallCounts
from .embedding_call import EmbeddingCall, EmbeddingPreparation, VectorOptions
from .errors import InvalidInputError
from .replies import RowReply, RowResults
from .requests import RowRequest


def prepare_queries(
    instruction: str | None, options: VectorOptions, prepared: EmbeddingPreparation, texts: list[str], first: int
) -> EmbeddingCall:
    """Prepare the call for a window of queries; `first` is the position of its first text."""
    return prepared.queries(texts, instruction, options, first=first)


def prepare_documents(
    options: VectorOptions, prepared: EmbeddingPreparation, texts: list[str], first: int
) -> EmbeddingCall:
    """Prepare the call for a window of documents; `first` is the position of its first text."""
    return prepared.documents(texts, options, first=first)


def check_windows(texts: object, window_texts: int) -> None:
    """Raise InvalidInputError if a stream cannot have these arguments."""
    if isinstance(texts, str | bytes):
        raise InvalidInputError("texts is a single string, expected an iterable of strings: wrap it in [ ]")
    if window_texts < 1:
        raise InvalidInputError(f"window_texts is {window_texts}; it must be at least 1")


class EmbeddingStream:
    """The windows of a long input that are being computed: consecutive texts that are sorted by length together.

    Holds their texts and vectors, and nothing else.
    """

    def __init__(self, window_texts: int, counts: CallCounts) -> None:
        self._size = window_texts
        self._counts = counts
        self._windows: dict[int, tuple[EmbeddingCall, RowResults]] = {}
        self._next = 0

    def start(self, call: EmbeddingCall) -> Iterator[RowRequest]:
        """Add the next window, and return its requests; their positions are those in the whole input."""
        self._windows[call.texts.first // self._size] = (call, call.new_results())
        self._counts.texts += len(call.texts)
        return call.requests

    def add(self, reply: RowReply) -> None:
        """Add the vectors in a reply; raise ManifestError if it has another shape or type."""
        _, results = self._windows[int(reply.request.positions[0]) // self._size]
        results.add(reply)

    def finished(self) -> Iterator[NDArray[Any]]:
        """Yield the vectors `[window, dim]` of complete windows, in the order of the texts.

        Raises:
            InvalidInputError: A row is NaN, and the call does not allow it.
        """
        while (window := self._windows.get(self._next)) is not None and window[1].is_complete:
            del self._windows[self._next]
            self._next += 1
            call, results = window
            yield call.finish(results.finish())

    def leading(self) -> Iterator[NDArray[Any]]:
        """Yield the vectors of the first unfinished window that have no gap before them, if there are any."""
        window = self._windows.get(self._next)
        if window is not None:
            call, results = window
            count = results.count_leading()
            if count:
                yield call.finish(results.finish(count))
