"""Synchronous gRPC connection to one model on one Triton server."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from queue import SimpleQueue
from threading import Lock
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .errors import InvalidInputError, ServerTimeoutError, ServerUnavailableError
from .grpc_errors import map_grpc_errors
from .http_probe import speaks_http
from .messages import write_infer_request
from .replies import RowReply
from .requests import RowRequest

CHANNEL_OPTIONS = (
    # a reply of 4,096 rows × 4,096 floats is 64 MiB, and gRPC's default limit is 4 MiB
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # notices a connection that a load balancer dropped silently within about a minute; more pings without messages
    # between them would make Triton close the connection during long calls
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # a new channel has a connection of its own, rather than that of another channel to the same server
    ("grpc.use_local_subchannel_pool", 1),
)


class _Connection:
    """A gRPC channel and the calls that use it. A retired one is closed when its last call ends."""

    def __init__(self, url: str) -> None:
        self.channel = grpc.insecure_channel(url, options=CHANNEL_OPTIONS)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.calls = 0
        self.retired = False


class TritonChannel:
    """Calls one model. Thread-safe; connects on the first call, and anew after a timeout.

    Uses tritonclient's generated stub, because `InferenceServerClient.async_infer` loses a callback when two threads
    share a client.
    """

    def __init__(self, url: str, model: str, *, timeout_s: float) -> None:
        if url.startswith(("http://", "https://")):
            raise InvalidInputError(f"url {url!r}: give HOST:PORT of Triton's gRPC port, without a scheme")
        if not timeout_s > 0:
            raise InvalidInputError(f"timeout_s is {timeout_s}; it must be above 0")
        self.url = url
        self.model = model
        self.timeout_s = timeout_s
        self._lock = Lock()
        self._closed = False
        self._connection = _Connection(url)

    def model_config(self) -> Any:
        """Fetch the model's ModelConfig message."""
        request = service_pb2.ModelConfigRequest(name=self.model)
        try:
            with self._use() as stub:
                return stub.ModelConfig(request, timeout=self.timeout_s).config
        except ServerUnavailableError as exc:
            if not speaks_http(self.url):
                raise
            raise ServerUnavailableError(
                f"{self.url}: this is an HTTP port: give the port of Triton's gRPC service, 8001 by default"
            ) from exc

    def infer_all(self, requests: Iterable[RowRequest], *, max_in_flight: int) -> Generator[RowReply, None, None]:
        """Yield replies in order of arrival, with at most `max_in_flight` requests in flight.

        Requests in flight are cancelled after the first error, and when the generator is closed early.
        """
        pending = iter(requests)
        first_two = list(islice(pending, 2))
        if len(first_two) == 2:
            yield from self._infer_many(chain(first_two, pending), max_in_flight)
        # a single request uses a blocking call: gRPC starts a thread for a call with a future
        elif first_two:
            yield self._infer_one(first_two[0])

    def _infer_one(self, request: RowRequest) -> RowReply:
        message = write_infer_request(self.model, request.input_ids)
        with self._use() as stub:
            return RowReply(request, stub.ModelInfer(message, timeout=self.timeout_s))

    def _infer_many(self, pending: Iterator[RowRequest], max_in_flight: int) -> Generator[RowReply, None, None]:
        completed: SimpleQueue[Any] = SimpleQueue()
        in_flight: dict[Any, RowRequest] = {}
        try:
            with self._use() as stub:
                for request in islice(pending, max_in_flight):
                    self._start(stub, request, in_flight, completed)
                while in_flight:
                    call = completed.get()
                    request = in_flight.pop(call)
                    response = call.result()
                    for following in islice(pending, 1):
                        self._start(stub, following, in_flight, completed)
                    yield RowReply(request, response)
        finally:
            for call in in_flight:
                call.cancel()

    def _start(
        self, stub: Any, request: RowRequest, in_flight: dict[Any, RowRequest], completed: SimpleQueue[Any]
    ) -> None:
        message = write_infer_request(self.model, request.input_ids)
        call = stub.ModelInfer.future(message, timeout=self.timeout_s)
        in_flight[call] = request
        call.add_done_callback(completed.put)

    def close(self) -> None:
        """Close the connection and cancel pending calls. Idempotent."""
        with self._lock:
            self._closed = True
        self._connection.channel.close()

    @contextmanager
    def _use(self) -> Iterator[Any]:
        """The stub of the present connection, with gRPC's errors translated; a timeout retires the connection."""
        with self._lock:
            connection = self._connection
            connection.calls += 1
        try:
            with map_grpc_errors(self.url, self.model, self.timeout_s):
                yield connection.stub
        except ServerTimeoutError:
            # the server may be slow, or a load balancer may have dropped the connection without notice
            with self._lock:
                if connection is self._connection and not self._closed:
                    connection.retired = True
                    self._connection = _Connection(self.url)
            raise
        finally:
            with self._lock:
                connection.calls -= 1
                unused = connection.retired and not connection.calls
            if unused:
                connection.channel.close()
