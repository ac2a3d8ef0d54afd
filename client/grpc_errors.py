"""gRPC's errors as the client's own; the one place that knows both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from .errors import ServerError, ServerOverloadedError, ServerTimeoutError, ServerUnavailableError

# Triton's own words, which come under different status codes in different versions
_NOT_LOADED = ("no available versions", "unknown model", "is not ready")
_QUEUE_FULL = "exceeds maximum queue size"
_TOO_LARGE = "larger than max"


@contextmanager
def map_grpc_errors(url: str, model: str, timeout_s: float) -> Iterator[None]:
    """A context in which gRPC's errors become ServerError or one of its kinds, with the cause kept."""
    try:
        yield
    except ValueError as exc:
        if "closed" not in str(exc).lower():
            raise
        raise ServerError(f"{url}: the client of model {model!r} is closed, make a new one") from exc
    except grpc.RpcError as exc:
        raise _translate(exc, url, model, timeout_s) from exc


def _translate(error: grpc.RpcError, url: str, model: str, timeout_s: float) -> ServerError:
    code, details = error.code(), error.details() or ""
    words = details.lower()
    if any(phrase in words for phrase in _NOT_LOADED) or code is grpc.StatusCode.NOT_FOUND:
        return ServerUnavailableError(f"{url}: model {model!r} is not loaded there ({details})")
    if _QUEUE_FULL in words or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE not in words):
        return ServerOverloadedError(f"{url}: model {model!r} has a full queue; try again later ({details})")
    if code is grpc.StatusCode.UNAVAILABLE:
        return ServerUnavailableError(f"{url}: no Triton server reachable over gRPC ({details})")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServerTimeoutError(
            f"{url}: model {model!r} did not answer within {timeout_s:g} s: increase timeout_s or send fewer texts"
        )
    if code is grpc.StatusCode.CANCELLED:
        return ServerError(f"{url}: the call to model {model!r} was cancelled ({details})")
    return ServerError(f"{url}: model {model!r} returned {code.name}: {details}")
