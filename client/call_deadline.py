"""Deadline of a whole call, as distinct from the timeout of each of its requests."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from .errors import ServerTimeoutError


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDeadline:
    """When a call must have ended."""

    timeout_s: float
    expires_s: float
    """In seconds of the monotonic clock; infinite if the call has no deadline."""

    @classmethod
    def start(cls, timeout_s: float | None) -> CallDeadline:
        """Return the deadline of a call that starts now and may take `timeout_s`, or any time if that is None."""
        timeout_s = math.inf if timeout_s is None else timeout_s
        return cls(timeout_s=timeout_s, expires_s=time.monotonic() + timeout_s)

    @property
    def remaining_s(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.expires_s - time.monotonic())

    def error(self, url: str, model: str) -> ServerTimeoutError:
        """Return the exception of a call that cannot end in time."""
        return ServerTimeoutError(
            f"{url}: the call to model {model!r} cannot finish within its {self.timeout_s:g} s: increase "
            "call_timeout_s or send fewer texts; the exception's attribute partial has the results that arrived"
        )
