"""Synchronous gRPC connection to one model on one Triton server."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice
from threading import Lock
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .call_deadline import CallDeadline
from .errors import InvalidInputError, ModelNotLoadedError, ServerTimeoutError, ServerUnavailableError
from .grpc_errors import map_grpc_errors
from .http_probe import speaks_http
from .messages import InferTarget
from .pacing import Pace
from .replies import RowReply
from .requests import RowRequest
from .sending import Sender

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
        _check_url(url)
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

    def check_version(self, version: str) -> None:
        """Raise ModelNotLoadedError unless the server serves this version of the model, or any if it is empty."""
        request = service_pb2.ModelReadyRequest(name=self.model, version=version)
        with self._use() as stub:
            ready = stub.ModelReady(request, timeout=self.timeout_s).ready
        if not ready:
            raise self._not_served(version)

    def infer_all(
        self,
        requests: Iterable[RowRequest],
        version: str,
        output: str,
        pace: Pace,
        *,
        max_in_flight: int,
        deadline: CallDeadline,
    ) -> Generator[RowReply, None, None]:
        """Yield replies in order of arrival, with as many requests in flight as `pace` and `max_in_flight` allow.

        All replies are those of `version`, unless it is empty, and have only the output tensor named `output`.

        No request is sent that is not expected to be answered before `deadline`. Requests in flight are cancelled after
        the first error, and when the generator is closed early.

        Raises:
            ServerError: A request failed, or the call cannot end before `deadline`; see the subclasses.
        """
        pending = iter(requests)
        first_two = list(islice(pending, 2))
        try:
            with self._use() as stub:
                sender = Sender(
                    stub,
                    InferTarget(self.model, version, output),
                    pace,
                    timeout_s=self.timeout_s,
                    max_in_flight=max_in_flight,
                    deadline=deadline,
                )
                if len(first_two) == 2:
                    with closing(sender.infer_many(chain(first_two, pending))) as replies:
                        for reply in replies:
                            yield self._checked(reply, version)
                # a single request uses a blocking call: gRPC starts a thread for a call with a future
                elif first_two:
                    yield self._checked(sender.infer_one(first_two[0]), version)
        except ServerTimeoutError as exc:
            if deadline.remaining_s:
                raise
            raise deadline.error(self.url, self.model) from exc
        if sender.is_out_of_time:
            raise deadline.error(self.url, self.model)

    def _checked(self, reply: RowReply, version: str) -> RowReply:
        """Return `reply`; raise ModelNotLoadedError if another version than `version` computed it."""
        # a proxy may not forward the version
        if version and reply.response.model_version not in ("", version):
            raise self._not_served(version)
        return reply

    def _not_served(self, version: str) -> ModelNotLoadedError:
        which = f"version {version} of model" if version else "model"
        return ModelNotLoadedError(f"{self.url}: {which} {self.model!r} is not loaded: wait until it is ready")

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


def _check_url(url: str) -> None:
    """Raise InvalidInputError if `url` is empty, has a scheme, or a port that does not exist."""
    if not url.strip() or "://" in url:
        raise InvalidInputError(f"url {url!r}: give HOST:PORT of Triton's gRPC port, without a scheme")
    port = url.rpartition(":")[2]
    if port.removeprefix("-").isdigit() and not 0 < int(port[:9]) < 65_536:
        raise InvalidInputError(f"url {url!r}: a port is a number from 1 to 65535")
