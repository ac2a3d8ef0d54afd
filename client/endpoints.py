"""The servers of a client, and which of them may be asked now.

A server that fails is left alone for a time that doubles with each failure in a row, with jitter, so that clients do
not return all at once. After that time one request tries it; the first reply makes it available again. The log says
when a server fails and when it is back, except for full queues, which are normal under load.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from .errors import ClientError, ServerOverloadedError

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Endpoint:
    """One server."""

    url: str
    """`HOST:PORT`."""
    failures: int = 0
    """Failures since the last reply."""
    failed_s: float = 0.0
    """When the last of them was counted, in seconds of the clock."""
    opens_s: float = 0.0
    """When the next request may be sent, if there were failures."""
    is_logged: bool = False
    """Whether the log has one of them."""


class Endpoints:
    """Chooses a server for each request. Thread-safe; the calls of a client share it."""

    def __init__(
        self,
        urls: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._endpoints = [Endpoint(url) for url in urls]
        self._clock = clock
        self._jitter = jitter
        self._turn = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._endpoints)

    @property
    def urls(self) -> list[str]:
        """All servers."""
        return [endpoint.url for endpoint in self._endpoints]

    def choose(self, load: Mapping[str, int], *, waits: bool = True) -> Endpoint | None:
        """Return the server for the next request, None if all have failed too recently.

        Args:
            load: Tokens in flight of the call by URL; servers with fewer come first, and equal ones take turns.
            waits: Whether the call waits for servers that have failed; if not, it gets the one that has waited longest.
        """
        with self._lock:
            now_s = self._clock()
            self._turn += 1
            turns = self._endpoints[self._turn % len(self) :] + self._endpoints[: self._turn % len(self)]
            # a server that failed is tried as soon as it may be, as otherwise it would never be used again
            for endpoint in turns:
                if endpoint.failures and endpoint.opens_s <= now_s:
                    # the others wait for the result of this request
                    endpoint.opens_s = now_s + self._pause_s(endpoint)
                    return endpoint
            available = [endpoint for endpoint in turns if not endpoint.failures]
            if not available and not waits:
                return min(turns, key=lambda endpoint: endpoint.opens_s)
            return min(available, key=lambda endpoint: load.get(endpoint.url, 0), default=None)

    def wait_s(self) -> float:
        """Return the seconds until a server may be asked; 0 if one may be asked now."""
        with self._lock:
            if any(not endpoint.failures for endpoint in self._endpoints):
                return 0.0
            return max(0.0, min(endpoint.opens_s for endpoint in self._endpoints) - self._clock())

    def has_other(self, endpoint: Endpoint) -> bool:
        """Whether a server other than `endpoint` is available."""
        with self._lock:
            return any(other is not endpoint and not other.failures for other in self._endpoints)

    def replied(self, endpoint: Endpoint) -> None:
        """Note that a server has replied."""
        if not endpoint.failures:
            return
        with self._lock:
            was_logged, endpoint.is_logged = endpoint.is_logged, False
            endpoint.failures = 0
        if was_logged:
            _log.info("%s: the server replies again", endpoint.url)

    def failed(self, endpoint: Endpoint, sent_s: float, error: ClientError) -> None:
        """Note that a request that was sent at `sent_s` failed with `error`.

        The requests that were in flight when a server failed count as one failure.
        """
        if self._count_failure(endpoint, sent_s, is_outage=not isinstance(error, ServerOverloadedError)):
            _log.warning("server failed: %s", " ".join(str(error).split()))

    def _count_failure(self, endpoint: Endpoint, sent_s: float, *, is_outage: bool) -> bool:
        """Count a failure; return whether it is the first outage since the last reply."""
        with self._lock:
            if endpoint.failures and sent_s < endpoint.failed_s:
                return False
            endpoint.failures += 1
            endpoint.failed_s = self._clock()
            endpoint.opens_s = endpoint.failed_s + self._pause_s(endpoint)
            is_first = is_outage and not endpoint.is_logged
            endpoint.is_logged |= is_outage
            return is_first

    def forget_failures(self) -> None:
        """Make all servers available."""
        with self._lock:
            for endpoint in self._endpoints:
                endpoint.failures = 0
                endpoint.is_logged = False

    def _pause_s(self, endpoint: Endpoint) -> float:
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(endpoint.failures - 1, 16))
        return self._jitter(longest / 2, longest)
