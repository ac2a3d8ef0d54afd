"""The connection to one server, which is replaced after a timeout."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Any

from tritonclient.grpc import service_pb2_grpc

from .errors import ServerError, ServerTimeoutError


class Connection:
    """A gRPC channel and the number of calls that use it. A retired one is closed when its last call ends."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.calls = 0
        self.is_retired = False


class Link:
    """Connects on the first call, and anew after a timeout. Thread-safe.

    Uses tritonclient's generated stub, because `InferenceServerClient.async_infer` loses a callback when two threads
    share a client.
    """

    def __init__(
        self, url: str, model: str, open_channel: Callable[[str], Any], close_channel: Callable[[Any], None]
    ) -> None:
        """Create a link.

        Args:
            url: `HOST:PORT`.
            model: Name of the model, for messages.
            open_channel: Returns a channel to a URL.
            close_channel: Closes a channel, now or soon.
        """
        self.url = url
        self._model = model
        self._open = open_channel
        self._close = close_channel
        self._lock = Lock()
        self._process = os.getpid()
        self._is_closed = False
        self._connection: Connection | None = None

    def take(self) -> Connection:
        """Return the connection for one call; raise ServerError if the client is closed, or of another process."""
        if os.getpid() != self._process:
            raise ServerError(
                f"{self.url}: the client of model {self._model!r} was created before this process was forked, and gRPC "
                "connections do not survive a fork: create a client in each process, after the fork"
            )
        with self._lock:
            if self._is_closed:
                raise ServerError(f"{self.url}: the client of model {self._model!r} is closed; create a new one")
            if self._connection is None:
                self._connection = Connection(self._open(self.url))
            self._connection.calls += 1
            return self._connection

    def give_back(self, connection: Connection, error: BaseException | None = None) -> None:
        """End a call. After a timeout, later calls use a new connection."""
        with self._lock:
            connection.calls -= 1
            # the server may be slow, or a load balancer may have dropped the connection without notice
            if isinstance(error, ServerTimeoutError) and connection is self._connection:
                connection.is_retired = True
                self._connection = None
            unused = connection.is_retired and not connection.calls
        if unused:
            self._close(connection.channel)

    def close(self) -> None:
        """Close the connection and cancel its calls. Idempotent."""
        with self._lock:
            self._is_closed = True
            connection, self._connection = self._connection, None
        if connection is not None and os.getpid() == self._process:
            self._close(connection.channel)
