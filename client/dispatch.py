"""Which request of a call is sent next, and what happens after a reply or a failure. Performs no I/O.

The synchronous and the asynchronous client differ only in how they wait; both ask a `Dispatch` what to do.

- Requests are sent at the pace of the server (see `pacing`), to one of its addresses (see `endpoints`).
- A request that found the server unreachable, stopping or with a full queue is sent again, until it has failed for
  `retry_timeout_s`.
- A request that the server had not enough memory for is sent again as two halves.
- Rows that the server lost (see `model_outputs`) are sent again.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .call_counts import CallCounts
from .call_deadline import CallDeadline
from .endpoints import Endpoint, Endpoints
from .errors import (
    ClientError,
    ServerOutOfMemoryError,
    ServerOverloadedError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from .model_outputs import MAX_RESENDS, ModelOutput, lost_rows_error
from .pacing import Pace, SentRequest
from .replies import RowReply
from .requests import RowRequest

_CONGESTED = (ServerTimeoutError, ServerOverloadedError, ServerUnavailableError, ServerOutOfMemoryError)
_RETRIED = (ServerOverloadedError, ServerUnavailableError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """Limits of one call."""

    timeout_s: float
    """Timeout of each request."""
    retry_timeout_s: float
    """How long a request is sent again after its first failure."""
    max_in_flight: int
    deadline: CallDeadline


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Attempt:
    """A request to send, and its history."""

    request: RowRequest
    times_lost: int = 0
    """How often the server has lost its rows."""
    failing_since_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sending:
    """A request that is being sent."""

    attempt: _Attempt
    endpoint: Endpoint
    paced: SentRequest
    timeout_s: float
    ends_with_call: bool
    """Whether `timeout_s` is what the deadline of the call leaves."""

    @property
    def request(self) -> RowRequest:
        """The rows to send."""
        return self.attempt.request


class Dispatch:
    """State of one call. Not thread-safe: a call belongs to one thread or task."""

    def __init__(
        self, endpoints: Endpoints, pace: Pace, output: ModelOutput, limits: CallLimits, counts: CallCounts
    ) -> None:
        self.deadline = limits.deadline
        self._counts = counts
        self._endpoints = endpoints
        self._pace = pace
        self._output = output
        self._limits = limits
        self._again: deque[_Attempt] = deque()
        self._requests: Iterator[RowRequest] = iter(())
        self._accepts_requests = True
        self._in_flight = 0
        self._load: Counter[str] = Counter()
        self.is_out_of_time = False
        """Whether requests were left out because no reply was expected before the deadline."""

    @property
    def needs_requests(self) -> bool:
        """Whether `add` must be called before anything else can be sent."""
        return self._accepts_requests and not self.is_out_of_time and self._has_room and not self._peek()

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to send, and no reply to wait for."""
        return not self._in_flight and (self.is_out_of_time or not (self._accepts_requests or self._peek()))

    @property
    def is_last(self) -> bool:
        """Whether only one request is in flight, and no other is to be sent."""
        return self._in_flight == 1 and not self._accepts_requests and not self._peek()

    def add(self, requests: Iterator[RowRequest] | None) -> None:
        """Add requests, which are packed as they are sent; None if there are no more."""
        if requests is None:
            self._accepts_requests = False
        else:
            self._requests = requests

    def next(self) -> Sending | None:
        """Return the request to send now.

        None if there is none, or if the call must first receive a reply, or wait for `wait_s`.
        """
        if self.is_out_of_time or not self._has_room:
            return None
        attempt = self._peek()
        if attempt is None:
            return None
        tokens = attempt.request.input_ids.size
        outstanding = self._load.total()
        remaining_s = self.deadline.remaining_s
        if not remaining_s or self._pace.predict_s(tokens, outstanding) > remaining_s:
            # the reply to a request in flight may improve the prediction
            self.is_out_of_time = not self._in_flight
            return None
        endpoint = self._endpoints.choose(self._load, waits=self._limits.retry_timeout_s > 0)
        if endpoint is None:
            return None
        self._again.popleft()
        self._in_flight += 1
        self._counts.requests += 1
        self._load[endpoint.url] += tokens
        return Sending(
            attempt=attempt,
            endpoint=endpoint,
            paced=self._pace.send(tokens, outstanding),
            timeout_s=min(self._limits.timeout_s, remaining_s),
            ends_with_call=remaining_s < self._limits.timeout_s,
        )

    def now_s(self) -> float:
        """Return the time of the pace's clock in seconds."""
        return self._pace.now_s()

    def wait_s(self) -> float | None:
        """Return the longest time to wait for a reply before calling `next` again; None for any time."""
        if not (self._has_room and self._peek()):
            return None
        wait_s = self._endpoints.wait_s()
        # what is sent next may depend on a reply even if a server is available
        return None if self._in_flight and not wait_s else min(wait_s, self.deadline.remaining_s)

    def replied(self, sending: Sending, response: Any, arrived_s: float) -> RowReply:
        """Return the reply to a request, which arrived at `arrived_s` of the pace's clock.

        Raises:
            ServerError: The server has lost the same rows too often.
            ManifestError: The reply does not have the expected outputs.
        """
        self._landed(sending)
        self._endpoints.replied(sending.endpoint)
        self._pace.replied(sending.paced, arrived_s)
        reply = RowReply(sending.request, response)
        lost = self._output.read(response, len(reply.request.positions)).is_lost
        if lost.any():
            attempt = sending.attempt
            if attempt.times_lost == MAX_RESENDS:
                raise lost_rows_error(int(lost.sum()))
            self._note_retry(sending, "lost rows")
            again = RowRequest(reply.request.positions[lost], reply.request.input_ids[lost])
            self._again.append(_Attempt(request=again, times_lost=attempt.times_lost + 1))
        return reply

    def concerns_version(self, sending: Sending) -> bool:
        """Whether a server without the model's version may mean that there is a new one: no other server has it."""
        return not self._endpoints.has_other(sending.endpoint)

    def failed(self, sending: Sending, error: ClientError) -> None:
        """Arrange for a failed request to be sent again; raise `error` if that would not help, or took too long."""
        self._landed(sending)
        if isinstance(error, _CONGESTED):
            self._pace.failed(sending.paced)
        attempt = sending.attempt
        if isinstance(error, ServerOutOfMemoryError) and len(attempt.request.positions) > 1:
            self._note_retry(sending, "out of memory")
            self._again.extendleft(replace(attempt, request=half) for half in reversed(attempt.request.halves()))
            return
        if not isinstance(error, _RETRIED):
            raise error
        now_s = self._pace.now_s()
        since_s = now_s if attempt.failing_since_s is None else attempt.failing_since_s
        self._endpoints.failed(sending.endpoint, sending.paced.sent_s, error)
        if now_s - since_s >= self._limits.retry_timeout_s:
            raise error
        self._note_retry(sending, type(error).__name__)
        self._again.appendleft(replace(attempt, failing_since_s=since_s))

    @property
    def _has_room(self) -> bool:
        return self._in_flight < self._limits.max_in_flight and self._pace.has_room(self._load.total())

    def _peek(self) -> _Attempt | None:
        if not self._again:
            request = next(self._requests, None)
            if request is None:
                return None
            self._again.append(_Attempt(request=request))
        return self._again[0]

    def _note_retry(self, sending: Sending, reason: str) -> None:
        self._counts.retries += 1
        rows = len(sending.request.positions)
        _log.debug("%s: sending a request again (rows: %d, reason: %s)", sending.endpoint.url, rows, reason)

    def _landed(self, sending: Sending) -> None:
        self._in_flight -= 1
        self._load[sending.endpoint.url] -= sending.request.input_ids.size
