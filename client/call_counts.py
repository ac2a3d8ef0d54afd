"""What one call has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class CallCounts:
    """Numbers of one call, which its parts add to. Belongs to one thread or task, as the call does."""

    version: str = ""
    """Version of the model; empty if it is unknown."""
    texts: int = 0
    """Texts or pairs whose requests have been prepared."""
    tokens: int = 0
    """Tokens in the requests that were answered."""
    requests: int = 0
    """Requests that were sent, repetitions included."""
    retries: int = 0
    """Requests that had to be sent again, as a whole or in part."""
