"""Sending of one call's requests with gRPC's asyncio interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .connection import ConnectionOptions
from .dispatch import Dispatch, Sending
from .errors import ModelNotLoadedError, ServerError, ServerTimeoutError
from .grpc_errors import cancelled_error, map_grpc_errors
from .link import Connection, Link
from .messages import InferTarget, check_version, write_infer_request
from .replies import RowReply
from .requests import RowRequest
from .tracing import CallSpan


class AsyncRequestSource(Protocol):
    """Requests of a call, in parts; as `RequestSource`."""

    async def next(self) -> Iterator[RowRequest] | None:
        """Return the next part, None after the last one."""

    def prepare_next(self) -> None:
        """Begin to prepare the next part, if there is a reason to do so before it is needed."""


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    sending: Sending
    connection: Connection


class AsyncSender:
    """Sends the requests of one call; arguments are those of `Sender`."""

    def __init__(
        self,
        links: Mapping[str, Link],
        connection: ConnectionOptions,
        target: InferTarget,
        dispatch: Dispatch,
        span: CallSpan,
        on_not_loaded: Callable[[ModelNotLoadedError, str], Awaitable[None]],
    ) -> None:
        self._links = links
        self._connection = connection
        self._target = target
        self._dispatch = dispatch
        self._span = span
        self._on_not_loaded = on_not_loaded
        self._in_flight: dict[Any, _Flight] = {}
        self._completed: asyncio.Queue[tuple[Any, float]] = asyncio.Queue()

    async def infer_all(self, source: AsyncRequestSource) -> AsyncGenerator[RowReply, None]:
        """Yield replies in order of arrival; errors are those of `Sender.infer_all`."""
        try:
            while True:
                await self._fill(source)
                if self._dispatch.is_done:
                    return
                if self._completed.empty():
                    source.prepare_next()
                try:
                    async with asyncio.timeout(self._dispatch.wait_s()):
                        call, arrived_s = await self._completed.get()
                except TimeoutError:
                    continue
                reply = await self._receive(call, arrived_s)
                if reply is not None:
                    # the server must not wait while the caller uses the reply
                    await self._fill(source)
                    yield reply
        finally:
            for call, flight in self._in_flight.items():
                call.cancel()
                self._link(flight.sending).give_back(flight.connection)

    async def _fill(self, source: AsyncRequestSource) -> None:
        """Send what may be sent."""
        while True:
            if self._dispatch.needs_requests:
                self._dispatch.add(await source.next())
                continue
            sending = self._dispatch.next()
            if sending is None:
                return
            with self._span.active():
                self._start(sending)

    def _start(self, sending: Sending) -> None:
        link = self._link(sending)
        message = write_infer_request(self._target, sending.request.input_ids)
        metadata = self._span.propagate(self._connection.call_metadata())
        connection = link.take()
        try:
            with map_grpc_errors(link.url, self._target.model, sending.timeout_s):
                call = connection.stub.ModelInfer(message, timeout=sending.timeout_s, metadata=metadata)
        except ServerError as error:
            link.give_back(connection, error)
            raise
        self._in_flight[call] = _Flight(sending, connection)
        call.add_done_callback(lambda done: self._completed.put_nowait((done, self._dispatch.now_s())))

    async def _receive(self, call: Any, arrived_s: float) -> RowReply | None:
        """Return the reply of a call; None if it failed and its request is sent again."""
        flight = self._in_flight.pop(call)
        sending, link = flight.sending, self._link(flight.sending)
        failure: BaseException | None = None
        try:
            with map_grpc_errors(link.url, self._target.model, sending.timeout_s):
                response = await _result(call, link.url, self._target.model)
            check_version(response, self._target, link.url)
        except ServerError as error:
            failure = error
            await self._failed(sending, error)
            return None
        finally:
            link.give_back(flight.connection, failure)
        return self._dispatch.replied(sending, response, arrived_s)

    async def _failed(self, sending: Sending, error: ServerError) -> None:
        if isinstance(error, ServerTimeoutError) and sending.ends_with_call:
            raise self._dispatch.deadline.error(sending.endpoint.url, self._target.model) from error
        if isinstance(error, ModelNotLoadedError) and self._dispatch.concerns_version(sending):
            await self._on_not_loaded(error, sending.endpoint.url)
        self._dispatch.failed(sending, error)

    def _link(self, sending: Sending) -> Link:
        return self._links[sending.endpoint.url]


async def _result(call: Any, url: str, model: str) -> Any:
    """Return the response of a call that has ended."""
    try:
        return await call
    except asyncio.CancelledError as exc:
        # the call has ended, so it is not this task that was cancelled
        raise cancelled_error(url, model, "the client was closed") from exc
