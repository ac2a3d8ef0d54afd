"""Synchronous gRPC connections to one model on one or more Triton servers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from .connection import ConnectionOptions
from .dispatch import Dispatch
from .endpoints import Endpoints
from .errors import ClientError, ModelNotLoadedError, ServerTimeoutError, ServerUnavailableError
from .grpc_errors import http_port_error, map_grpc_errors
from .http_probe import speaks_http
from .link import Link
from .messages import InferTarget, version_not_loaded
from .replies import RowReply
from .sending import Sender
from .server_info import ServerInfo, read_server_info
from .sources import RequestSource
from .tracing import CallSpan


class TritonChannel:
    """Calls one model. Thread-safe; connects on the first call, and anew after a timeout."""

    def __init__(self, model: str, connection: ConnectionOptions, *, timeout_s: float) -> None:
        self.model = model
        self.endpoints = Endpoints(connection.urls)
        self._connection = connection
        self._timeout_s = timeout_s
        credentials = None if connection.tls is None else connection.tls.credentials()

        def open_channel(url: str) -> grpc.Channel:
            if credentials is None:
                return grpc.insecure_channel(url, options=connection.channel_options)
            return grpc.secure_channel(url, credentials, options=connection.channel_options)

        self._links = {url: Link(url, model, open_channel, lambda channel: channel.close()) for url in connection.urls}

    def model_config(self, first: str | None = None) -> Any:
        """Fetch the model's ModelConfig message from the first server that has it, beginning with `first`."""
        request = service_pb2.ModelConfigRequest(name=self.model)
        return self._ask(lambda stub, options: stub.ModelConfig(request, **options).config, first)

    def check_version(self, version: str, timeout_s: float | None = None) -> None:
        """Raise ModelNotLoadedError unless a server serves this version of the model, or any if it is empty.

        Args:
            version: The version.
            timeout_s: Timeout for each server; None for that of requests.
        """
        request = service_pb2.ModelReadyRequest(name=self.model, version=version)

        def ask(stub: Any, options: dict[str, Any]) -> None:
            if not stub.ModelReady(request, **options).ready:
                raise version_not_loaded(self._connection.urls[0], self.model, version)

        self._ask(ask, timeout_s=timeout_s)

    def server_info(self) -> list[ServerInfo]:
        """Return what each server says of itself, without those that are unreachable; raise ServerError if all are."""
        request = service_pb2.ServerMetadataRequest()
        options = {"timeout": self._timeout_s, "metadata": self._connection.call_metadata()}
        found: list[ServerInfo] = []
        failures: list[ClientError] = []
        for url in self._links:
            try:
                with self._use(url) as stub:
                    found.append(read_server_info(url, stub.ServerMetadata(request, **options)))
            except (ServerUnavailableError, ServerTimeoutError) as exc:
                failures.append(exc)
        if not found:
            raise failures[0]
        return found

    def infer_all(
        self,
        source: RequestSource,
        target: InferTarget,
        dispatch: Dispatch,
        span: CallSpan,
        on_not_loaded: Callable[[ModelNotLoadedError, str], None],
    ) -> Generator[RowReply, None, None]:
        """Yield replies in order of arrival, as many requests in flight as `dispatch` allows.

        Requests in flight are cancelled after an error, and when the generator is closed early.

        Args:
            source: The requests.
            target: Model, version and output. All replies are of this version, unless it is empty.
            dispatch: State of the call.
            span: Span of the call.
            on_not_loaded: As for `Sender`.

        Raises:
            ServerError: A request failed for good, or the call cannot end before its deadline; see the subclasses.
        """
        sender = Sender(self._links, self._connection, target, dispatch, span, on_not_loaded)
        with closing(sender.infer_all(source)) as replies:
            yield from replies
        if dispatch.is_out_of_time:
            raise dispatch.deadline.error(self._connection.urls[0], self.model)

    def close(self) -> None:
        """Close the connections and cancel pending calls. Idempotent."""
        for link in self._links.values():
            link.close()

    def _ask(
        self, call: Callable[[Any, dict[str, Any]], Any], first: str | None = None, timeout_s: float | None = None
    ) -> Any:
        """Return the result of a call to the first server that answers it."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        options = {"timeout": timeout_s, "metadata": self._connection.call_metadata()}
        failure: ClientError | None = None
        for url in sorted(self._links, key=lambda url: url != first):
            try:
                with self._use(url, timeout_s) as stub:
                    return call(stub, options)
            except (ServerUnavailableError, ServerTimeoutError) as exc:
                # a server that replies says more than one that is unreachable
                if failure is None or isinstance(exc, ModelNotLoadedError):
                    failure = exc
                if type(exc) is ServerUnavailableError and speaks_http(url):
                    raise http_port_error(url) from exc
        assert failure is not None
        raise failure

    @contextmanager
    def _use(self, url: str, timeout_s: float | None = None) -> Iterator[Any]:
        """The stub of the present connection, with gRPC's errors translated; a timeout retires the connection."""
        link = self._links[url]
        connection = link.take()
        failure: BaseException | None = None
        try:
            with map_grpc_errors(url, self.model, timeout_s or self._timeout_s):
                yield connection.stub
        except ClientError as exc:
            failure = exc
            raise
        finally:
            link.give_back(connection, failure)
