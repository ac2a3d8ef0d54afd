"""Sending of one call's requests with synchronous gRPC."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from .connection import ConnectionOptions
from .dispatch import Dispatch, Sending
from .errors import ModelNotLoadedError, ServerError, ServerTimeoutError
from .grpc_errors import map_grpc_errors
from .link import Connection, Link
from .messages import InferTarget, check_version, write_infer_request
from .replies import RowReply
from .sources import RequestSource
from .tracing import CallSpan


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    sending: Sending
    connection: Connection


@dataclass(frozen=True, slots=True, eq=False)
class _FinishedCall:
    """A blocking call that has ended, with the interface of a gRPC future."""

    response: Any = None
    error: grpc.RpcError | ValueError | None = None

    def result(self) -> Any:
        """Return the response, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.response

    def cancel(self) -> None:
        """Do nothing."""


class Sender:
    """Sends the requests of one call."""

    def __init__(
        self,
        links: Mapping[str, Link],
        connection: ConnectionOptions,
        target: InferTarget,
        dispatch: Dispatch,
        span: CallSpan,
        on_not_loaded: Callable[[ModelNotLoadedError, str], None],
    ) -> None:
        """Create the sender of one call.

        Args:
            links: The servers by URL.
            connection: Options of the connection, for the metadata.
            target: What requests ask for.
            dispatch: Says what to send.
            span: Span of the call, whose context the requests carry.
            on_not_loaded: Called with the error and the URL when no server has the version of `target`; raises if there
                is another.
        """
        self._links = links
        self._connection = connection
        self._target = target
        self._dispatch = dispatch
        self._span = span
        self._on_not_loaded = on_not_loaded
        self._in_flight: dict[Any, _Flight] = {}
        self._completed: SimpleQueue[tuple[Any, float]] = SimpleQueue()

    def infer_all(self, source: RequestSource) -> Generator[RowReply, None, None]:
        """Yield replies in order of arrival.

        Requests in flight are cancelled after an error, and when the generator is closed.

        Raises:
            ServerError: A request failed for good.
            ManifestError: A reply does not have the expected output.
        """
        try:
            while True:
                self._fill(source)
                if self._dispatch.is_done:
                    return
                if self._completed.empty():
                    source.prepare_next()
                try:
                    call, arrived_s = self._completed.get(timeout=self._dispatch.wait_s())
                except Empty:
                    continue
                reply = self._receive(call, arrived_s)
                if reply is not None:
                    # the server must not wait while the caller uses the reply
                    self._fill(source)
                    yield reply
        finally:
            for call, flight in self._in_flight.items():
                call.cancel()
                self._link(flight.sending).give_back(flight.connection)

    def _fill(self, source: RequestSource) -> None:
        """Send what may be sent."""
        while True:
            if self._dispatch.needs_requests:
                self._dispatch.add(source.next())
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
        infer = connection.stub.ModelInfer
        flight = _Flight(sending, connection)
        # a single request uses a blocking call: gRPC starts a thread for a call with a future
        if self._dispatch.is_last:
            finished = _call_now(infer, message, sending.timeout_s, metadata)
            self._in_flight[finished] = flight
            self._completed.put((finished, self._dispatch.now_s()))
            return
        try:
            with map_grpc_errors(link.url, self._target.model, sending.timeout_s):
                call = infer.future(message, timeout=sending.timeout_s, metadata=metadata)
        except ServerError as error:
            link.give_back(connection, error)
            raise
        self._in_flight[call] = flight
        call.add_done_callback(lambda done: self._completed.put((done, self._dispatch.now_s())))

    def _receive(self, call: Any, arrived_s: float) -> RowReply | None:
        """Return the reply of a call; None if it failed and its request is sent again."""
        flight = self._in_flight.pop(call)
        sending, link = flight.sending, self._link(flight.sending)
        failure: BaseException | None = None
        try:
            with map_grpc_errors(link.url, self._target.model, sending.timeout_s):
                response = call.result()
            check_version(response, self._target, link.url)
        except ServerError as error:
            failure = error
            self._failed(sending, error)
            return None
        finally:
            link.give_back(flight.connection, failure)
        return self._dispatch.replied(sending, response, arrived_s)

    def _failed(self, sending: Sending, error: ServerError) -> None:
        if isinstance(error, ServerTimeoutError) and sending.ends_with_call:
            raise self._dispatch.deadline.error(sending.endpoint.url, self._target.model) from error
        if isinstance(error, ModelNotLoadedError) and self._dispatch.concerns_version(sending):
            self._on_not_loaded(error, sending.endpoint.url)
        self._dispatch.failed(sending, error)

    def _link(self, sending: Sending) -> Link:
        return self._links[sending.endpoint.url]


def _call_now(infer: Any, message: Any, timeout_s: float, metadata: list[tuple[str, str]]) -> _FinishedCall:
    try:
        return _FinishedCall(response=infer(message, timeout=timeout_s, metadata=metadata))
    except (grpc.RpcError, ValueError) as exc:
        return _FinishedCall(error=exc)
