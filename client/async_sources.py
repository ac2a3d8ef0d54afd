"""Where the requests of a call come from, in an event loop: one list of texts, or windows that are prepared ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Generic, TypeVar

from .requests import RowRequest
from .sources import TextWindows

PreparedT = TypeVar("PreparedT")


class AsyncSinglePart:
    """Requests that are all there; see `SinglePart`."""

    def __init__(self, requests: Iterator[RowRequest]) -> None:
        self._requests: Iterator[RowRequest] | None = requests

    async def next(self) -> Iterator[RowRequest] | None:
        """Return the requests once."""
        requests, self._requests = self._requests, None
        return requests

    def prepare_next(self) -> None:
        """Do nothing."""


class AsyncTextWindows:
    """Consecutive windows of an iterable or asynchronous iterable of texts."""

    def __init__(self, texts: Iterable[str] | AsyncIterable[str], window_texts: int) -> None:
        self._size = window_texts
        self._start = 0
        self._async_texts: AsyncIterator[str] | None = None
        self._windows: TextWindows | None = None
        if isinstance(texts, AsyncIterable):
            self._async_texts = aiter(texts)
        else:
            self._windows = TextWindows(texts, window_texts)

    async def next(self) -> tuple[list[str], int] | None:
        """Return the next texts and the position of the first one; None at the end."""
        if self._async_texts is None:
            assert self._windows is not None
            return self._windows.next()
        texts: list[str] = []
        while len(texts) < self._size:
            try:
                texts.append(await anext(self._async_texts))
            except StopAsyncIteration:
                break
        start = self._start
        self._start += len(texts)
        return (texts, start) if texts else None


class AsyncPreparedWindows(Generic[PreparedT]):
    """Windows that a task reads, and a thread tokenizes, while the requests of the one before are computed."""

    def __init__(
        self,
        windows: AsyncTextWindows,
        prepare: Callable[[list[str], int], PreparedT],
        start: Callable[[PreparedT], Iterator[RowRequest]],
    ) -> None:
        """Create the source; arguments are those of `PreparedWindows`."""
        self._windows = windows
        self._prepare = prepare
        self._start = start
        self._ahead: asyncio.Task[PreparedT | None] | None = None
        self._has_ended = False

    async def next(self) -> Iterator[RowRequest] | None:
        """Return the requests of the next window, None after the last one."""
        self.prepare_next()
        if self._ahead is None:
            return None
        task, self._ahead = self._ahead, None
        try:
            prepared = await task
        except BaseException:
            task.cancel()
            raise
        if prepared is None:
            self._has_ended = True
            return None
        return self._start(prepared)

    def prepare_next(self) -> None:
        """Start the task that reads and prepares the next window."""
        if self._ahead is None and not self._has_ended:
            self._ahead = asyncio.get_running_loop().create_task(self._read())

    async def aclose(self) -> None:
        """Stop the task."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
            self._ahead = None

    async def _read(self) -> PreparedT | None:
        window = await self._windows.next()
        return None if window is None else await asyncio.to_thread(self._prepare, *window)
