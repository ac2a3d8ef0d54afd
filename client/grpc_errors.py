"""Mapping of gRPC errors to the client's exceptions; the only module that knows both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from .errors import (
    ClientError,
    ManifestError,
    ModelNotLoadedError,
    ServerError,
    ServerOutOfMemoryError,
    ServerOverloadedError,
    ServerTimeoutError,
    ServerUnavailableError,
)

# Triton's messages, whose status codes differ between versions
_NOT_LOADED = ("no available versions", "unknown model", "is not ready")
_QUEUE_FULL = "exceeds maximum queue size"
_QUEUE_TIMEOUT = "request timeout expired"
_TOO_LARGE = "larger than max"
_NO_OUTPUT = "unexpected inference output"
# of ONNX Runtime's allocators, C++ and CUDA
_OUT_OF_MEMORY = ("failed to allocate memory", "available memory of", "bad_alloc", "out of memory")
# gRPC's messages
_CONNECTION_LOST = ("keepalive", "ping timeout", "watchdog timeout")
_CANCELLED_HERE = ("locally cancelled", "channel closed")


@contextmanager
def map_grpc_errors(url: str, model: str, timeout_s: float) -> Iterator[None]:
    """Translate gRPC errors raised inside the context, with the original as cause.

    Raises:
        ServerError: A request failed; see the subclasses.
        ManifestError: The model does not have the output that was requested.
    """
    try:
        yield
    except (ValueError, grpc.aio.UsageError) as exc:
        if "closed" not in str(exc).lower():
            raise
        raise ServerError(f"{url}: the client of model {model!r} is closed; create a new one") from exc
    except grpc.RpcError as exc:
        raise translate_error(exc, url, model, timeout_s) from exc


def cancelled_error(url: str, model: str, details: str) -> ServerError:
    """Return the error for a call that this client cancelled."""
    return ServerError(f"{url}: the call to model {model!r} was cancelled ({details})")


def http_port_error(url: str) -> ServerUnavailableError:
    """Return the error for a URL where a server speaks HTTP."""
    return ServerUnavailableError(
        f"{url}: this is an HTTP port: give the port of Triton's gRPC service, 8001 by default"
    )


def translate_error(error: grpc.RpcError, url: str, model: str, timeout_s: float) -> ClientError:
    """Return the client's exception for a gRPC error, without setting its cause."""
    code, details = error.code(), error.details() or ""
    lowered = details.lower()
    if any(phrase in lowered for phrase in _NOT_LOADED) or code is grpc.StatusCode.NOT_FOUND:
        return ModelNotLoadedError(
            f"{url}: model {model!r} is not loaded: check the name, or wait until it is ready ({details})"
        )
    if _QUEUE_FULL in lowered or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE not in lowered):
        return ServerOverloadedError(f"{url}: the queue of model {model!r} is full; retry later ({details})")
    if _QUEUE_TIMEOUT in lowered and code is grpc.StatusCode.UNAVAILABLE:
        return ServerOverloadedError(
            f"{url}: a request to model {model!r} waited longer than the server allows; retry later ({details})"
        )
    if any(phrase in lowered for phrase in _OUT_OF_MEMORY):
        return ServerOutOfMemoryError(
            f"{url}: model {model!r} ran out of memory: export it with a smaller token budget or fewer instances "
            f"({details})"
        )
    if any(phrase in lowered for phrase in _CONNECTION_LOST):
        return ServerUnavailableError(
            f"{url}: the connection was lost without notice, as behind a load balancer that forgets idle connections: "
            f"call again ({details})"
        )
    if _NO_OUTPUT in lowered:
        return ManifestError(
            f"{url}: model {model!r} does not have the output of this client's manifest: the model may have been "
            f"replaced; create a new client ({details})"
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        return ServerUnavailableError(
            f"{url}: no Triton server reachable over gRPC: check that it is running and uses this port, and whether it "
            f"requires TLS ({details})"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServerTimeoutError(
            f"{url}: model {model!r} did not reply within {timeout_s:g} s: increase timeout_s or send fewer texts"
        )
    if code is grpc.StatusCode.CANCELLED and not any(phrase in lowered for phrase in _CANCELLED_HERE):
        return ServerUnavailableError(f"{url}: the server cancelled the call to model {model!r}; retry ({details})")
    if code is grpc.StatusCode.CANCELLED:
        return cancelled_error(url, model, details)
    return ServerError(f"{url}: model {model!r} returned {code.name}: {details}")
