"""Where the requests of a call come from: one list of texts, or windows of a long input that are prepared ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, Protocol, TypeVar

from .requests import RowRequest

PreparedT = TypeVar("PreparedT")


class RequestSource(Protocol):
    """Requests of a call, in parts."""

    def next(self) -> Iterator[RowRequest] | None:
        """Return the next part, None after the last one."""

    def prepare_next(self) -> None:
        """Begin to prepare the next part, if there is a reason to do so before it is needed."""


class SinglePart:
    """Requests that are all there."""

    def __init__(self, requests: Iterator[RowRequest]) -> None:
        self._requests: Iterator[RowRequest] | None = requests

    def next(self) -> Iterator[RowRequest] | None:
        """Return the requests once."""
        requests, self._requests = self._requests, None
        return requests

    def prepare_next(self) -> None:
        """Do nothing."""


class TextWindows:
    """Consecutive windows of an iterable of texts."""

    def __init__(self, texts: Iterable[str], window_texts: int) -> None:
        self._texts = iter(texts)
        self._size = window_texts
        self._start = 0

    def next(self) -> tuple[list[str], int] | None:
        """Return the next texts and the position of the first one; None at the end."""
        texts = list(islice(self._texts, self._size))
        if not texts:
            return None
        start = self._start
        self._start += len(texts)
        return texts, start


class PreparedWindows(Generic[PreparedT]):
    """Windows that a thread tokenizes while the requests of the one before are computed.

    The texts are read by the caller's thread, one window ahead.
    """

    def __init__(
        self,
        windows: TextWindows,
        prepare: Callable[[list[str], int], PreparedT],
        start: Callable[[PreparedT], Iterator[RowRequest]],
    ) -> None:
        """Create the source.

        Args:
            windows: The texts.
            prepare: Prepares the call for a list of texts, in the thread; its second argument is the position of the
                first one.
            start: Returns the requests of a prepared call, when they are needed.
        """
        self._windows = windows
        self._prepare = prepare
        self._start = start
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="tokenization")
        self._ahead: Future[PreparedT] | None = None

    def next(self) -> Iterator[RowRequest] | None:
        """Return the requests of the next window, None after the last one."""
        self.prepare_next()
        future, self._ahead = self._ahead, None
        return None if future is None else self._start(future.result())

    def prepare_next(self) -> None:
        """Read the texts of the next window, and let the thread prepare it."""
        if self._ahead is None:
            window = self._windows.next()
            if window is not None:
                self._ahead = self._executor.submit(self._prepare, *window)

    def close(self) -> None:
        """Stop the thread."""
        self._executor.shutdown(wait=False, cancel_futures=True)
