"""Load that the exporter recommends to clients."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import known_fields, require_integers


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendedLoad:
    """Tokens that one client should send to the server, padding included."""

    request_tokens: int
    """Most tokens of one request: what the server computes in one batch."""
    tokens_in_flight: int
    """Most tokens of concurrent requests: for each instance, one batch being computed and one that waits."""

    @classmethod
    def from_field(cls, value: object) -> RecommendedLoad | None:
        """Read the manifest's field `load`, None if it has none; raise TypeError or ValueError if it is malformed."""
        if value is None:
            return None
        fields = known_fields(cls, value)
        require_integers(fields, *fields)
        load = cls(**fields)
        if min(load.request_tokens, load.tokens_in_flight) < 1:
            raise ValueError(f"load is {value!r}; its numbers must be positive")
        return load
