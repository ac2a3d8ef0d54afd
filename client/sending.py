"""Sending of one call's requests over a gRPC stub, at the pace of the server."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import Any, NamedTuple

import grpc

from .call_deadline import CallDeadline
from .messages import InferTarget, write_infer_request
from .pacing import Pace, SentRequest
from .replies import RowReply
from .requests import RowRequest

_CONGESTED = (
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,  # Triton's code for a full queue, and for too long a wait in it
)


class _InFlight(NamedTuple):
    request: RowRequest
    sent: SentRequest


class Sender:
    """Sends the requests of one call. Raises gRPC's own errors."""

    def __init__(
        self,
        stub: Any,
        target: InferTarget,
        pace: Pace,
        *,
        timeout_s: float,
        max_in_flight: int,
        deadline: CallDeadline,
    ) -> None:
        self._stub = stub
        self._target = target
        self._pace = pace
        self._timeout_s = timeout_s
        self._max_in_flight = max_in_flight
        self._deadline = deadline
        self._in_flight: dict[Any, _InFlight] = {}
        self._outstanding = 0
        self._completed: SimpleQueue[tuple[Any, float]] = SimpleQueue()
        self._next: RowRequest | None = None
        self.is_out_of_time = False
        """Whether requests were left out because no reply was expected before the deadline."""

    def infer_one(self, request: RowRequest) -> RowReply:
        """Send one request and wait for the reply."""
        message = write_infer_request(self._target, request.input_ids)
        sent = self._pace.send(request.input_ids.size, 0)
        try:
            response = self._stub.ModelInfer(message, timeout=self._request_timeout_s())
        except grpc.RpcError as exc:
            self._report_failure(exc, sent)
            raise
        self._pace.replied(sent, self._pace.now_s())
        return RowReply(request, response)

    def infer_many(self, pending: Iterator[RowRequest]) -> Generator[RowReply, None, None]:
        """Yield replies in order of arrival; cancels what is in flight after an error or when closed."""
        try:
            self._fill(pending)
            while self._in_flight:
                call, arrived_s = self._completed.get()
                request, sent = self._in_flight.pop(call)
                self._outstanding -= sent.tokens
                try:
                    response = call.result()
                except grpc.RpcError as exc:
                    self._report_failure(exc, sent)
                    raise
                self._pace.replied(sent, arrived_s)
                # the server must not wait while the caller uses the reply
                self._fill(pending)
                yield RowReply(request, response)
        finally:
            for call in self._in_flight:
                call.cancel()

    def _fill(self, pending: Iterator[RowRequest]) -> None:
        """Send requests as long as there is room for them."""
        while (
            not self.is_out_of_time
            and len(self._in_flight) < self._max_in_flight
            and self._pace.has_room(self._outstanding)
        ):
            request = self._next or next(pending, None)
            self._next = request
            if request is None:
                return
            if self._pace.predict_s(request.input_ids.size, self._outstanding) > self._deadline.remaining_s:
                # the reply to a request in flight may improve the prediction
                self.is_out_of_time = not self._in_flight
                return
            self._next = None
            self._start(request)

    def _start(self, request: RowRequest) -> None:
        message = write_infer_request(self._target, request.input_ids)
        sent = self._pace.send(request.input_ids.size, self._outstanding)
        call = self._stub.ModelInfer.future(message, timeout=self._request_timeout_s())
        self._in_flight[call] = _InFlight(request, sent)
        self._outstanding += sent.tokens
        call.add_done_callback(lambda done: self._completed.put((done, self._pace.now_s())))

    def _request_timeout_s(self) -> float:
        return min(self._timeout_s, self._deadline.remaining_s)

    def _report_failure(self, error: grpc.RpcError, sent: SentRequest) -> None:
        if error.code() in _CONGESTED:
            self._pace.failed(sent)
