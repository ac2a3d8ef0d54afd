"""Pacing of a client's requests by the turnaround that it measures.

A server computes what reaches it, even if the client has stopped waiting, so a long list must wait in the client and
not in the server's queue. A client therefore keeps at most a window of tokens in flight per call, and a request
takes at most half of the window, so that one request is computed while another waits. Several servers share a window
of so many times the size.

- The window starts at the manifest's recommended tokens of one request, and never exceeds its recommended tokens in
  flight.
- A reply within TARGET_S to a call that used its window, at least a quarter of it, adds the request's tokens to the
  window, which doubles it each round, until a reply is late for the first time; from then on the window grows by one
  request each round.
- A reply after TARGET_S narrows the window to the tokens that the server has just computed within TARGET_S.
- A timeout, a full queue, and a reply after TARGET_S to a call that did not use its window, which waited for requests
  of others, halve the window.
- The requests that are in flight when the window narrows do not halve it again.

This is the slow start, additive increase and multiplicative decrease of TCP, with turnaround in place of packet loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from .manifest import RecommendedLoad
from .requests import RequestLimits

TARGET_S = 1.0
"""Turnaround of a request to aim at, in seconds, including its wait behind the other requests of the call."""
MIN_REQUEST_TOKENS = 64
"""The window always allows requests of this size."""
DEFAULT_LOAD = RecommendedLoad(request_tokens=2_048, tokens_in_flight=131_072)
"""For models whose manifest recommends none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """A request in flight, as far as pacing is concerned."""

    tokens: int
    """Its tokens, padding included."""
    outstanding: int
    """Tokens of the call that were in flight when it was sent, its own included."""
    sent_s: float
    """When it was sent, in seconds of the pace's clock."""


class Pace:
    """Window of tokens in flight, learnt from replies. Thread-safe; the calls of a client share it.

    Each call may have a whole window in flight: concurrent calls lengthen each other's turnaround, which narrows the
    window of all.
    """

    def __init__(
        self,
        limits: RequestLimits,
        load: RecommendedLoad | None,
        clock: Callable[[], float] = time.monotonic,
        servers: int = 1,
    ) -> None:
        """Create the pace of a client.

        Args:
            limits: Largest request that the server and the caller allow.
            load: Recommendation of the manifest for one server.
            clock: Returns the time in seconds.
            servers: Number of servers that share the requests.
        """
        load = load or DEFAULT_LOAD
        self._limits = limits
        self._servers = servers
        self._smallest = servers * 2 * MIN_REQUEST_TOKENS
        self._largest = max(servers * load.tokens_in_flight, self._smallest)
        self._window = float(min(self._largest, max(servers * load.request_tokens, self._smallest)))
        self._tokens_per_s: float | None = None
        self._has_been_late = False
        self._narrowed_s = clock()
        self._clock = clock
        self._lock = Lock()

    @property
    def window(self) -> int:
        """Most tokens of a call that may be in flight."""
        return int(self._window)

    def limits(self) -> RequestLimits:
        """Return the limits of the next request."""
        tokens = min(self._limits.tokens, max(self.window // (2 * self._servers), MIN_REQUEST_TOKENS))
        return RequestLimits(rows=self._limits.rows, tokens=tokens)

    def has_room(self, outstanding: int) -> bool:
        """Whether a call with `outstanding` tokens in flight may send another request."""
        return outstanding == 0 or outstanding + self.limits().tokens <= self.window

    def now_s(self) -> float:
        """Return the time of the pace's clock in seconds."""
        return self._clock()

    def send(self, tokens: int, outstanding: int) -> SentRequest:
        """Note that a request is being sent while `outstanding` other tokens of its call are in flight."""
        return SentRequest(tokens=tokens, outstanding=outstanding + tokens, sent_s=self._clock())

    def predict_s(self, tokens: int, outstanding: int) -> float:
        """Return the turnaround to expect of a request, in seconds; 0 while the server's speed is unknown."""
        speed = self._tokens_per_s
        return 0.0 if speed is None else (outstanding + tokens) / speed

    def replied(self, request: SentRequest, arrived_s: float) -> None:
        """Adapt to the reply to `request`, which arrived at `arrived_s`."""
        with self._lock:
            turnaround_s = max(arrived_s - request.sent_s, 1e-6)
            is_late = turnaround_s > TARGET_S
            # less says nothing about the server's speed, nor about a larger window; a full request alone is enough
            if 4 * request.outstanding < self._window:
                if is_late:
                    self._halve(request)
                return
            self._tokens_per_s = request.outstanding / turnaround_s
            if is_late:
                self._narrow(self._tokens_per_s * TARGET_S)
            else:
                step = request.tokens * (self.limits().tokens / self._window if self._has_been_late else 1)
                self._window = min(self._largest, self._window + step)

    def failed(self, request: SentRequest) -> None:
        """Adapt to a timeout of `request`, or to the server's refusal to queue it."""
        with self._lock:
            self._halve(request)

    def _halve(self, request: SentRequest) -> None:
        # requests that were in flight when the window last narrowed would narrow it again for the same reason
        if request.sent_s >= self._narrowed_s:
            self._narrow(self._window / 2)

    def _narrow(self, window: float) -> None:
        self._window = min(self._window, max(window, self._smallest))
        self._narrowed_s = self._clock()
        self._has_been_late = True
