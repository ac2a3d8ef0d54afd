"""Asynchronous gRPC connections to one model on one or more Triton servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from .async_sending import AsyncRequestSource, AsyncSender
from .connection import ConnectionOptions
from .dispatch import Dispatch
from .endpoints import Endpoints
from .errors import ClientError, ModelNotLoadedError, ServerTimeoutError, ServerUnavailableError
from .grpc_errors import http_port_error, map_grpc_errors
from .http_probe import speaks_http
from .link import Link
from .messages import InferTarget, version_not_loaded
from .replies import RowReply
from .server_info import ServerInfo, read_server_info
from .tracing import CallSpan


class AsyncTritonChannel:
    """Calls one model from the tasks of one event loop; otherwise as `TritonChannel`."""

    def __init__(self, model: str, connection: ConnectionOptions, *, timeout_s: float) -> None:
        self.model = model
        self.endpoints = Endpoints(connection.urls)
        self._connection = connection
        self._timeout_s = timeout_s
        self._closing: set[asyncio.Task[None]] = set()
        credentials = None if connection.tls is None else connection.tls.credentials()

        def open_channel(url: str) -> grpc.aio.Channel:
            if credentials is None:
                return grpc.aio.insecure_channel(url, options=connection.channel_options)
            return grpc.aio.secure_channel(url, credentials, options=connection.channel_options)

        self._links = {url: Link(url, model, open_channel, self._close_channel) for url in connection.urls}

    async def model_config(self, first: str | None = None) -> Any:
        """Fetch the model's ModelConfig message from the first server that has it, beginning with `first`."""
        request = service_pb2.ModelConfigRequest(name=self.model)
        reply = await self._ask(lambda stub, options: stub.ModelConfig(request, **options), first)
        return reply.config

    async def check_version(self, version: str, timeout_s: float | None = None) -> None:
        """Raise ModelNotLoadedError unless a server serves this version; see `TritonChannel.check_version`."""
        request = service_pb2.ModelReadyRequest(name=self.model, version=version)

        async def ask(stub: Any, options: dict[str, Any]) -> None:
            if not (await stub.ModelReady(request, **options)).ready:
                raise version_not_loaded(self._connection.urls[0], self.model, version)

        await self._ask(ask, timeout_s=timeout_s)

    async def server_info(self) -> list[ServerInfo]:
        """Return what each server says of itself, without those that are unreachable; raise ServerError if all are."""
        request = service_pb2.ServerMetadataRequest()
        options = {"timeout": self._timeout_s, "metadata": self._connection.call_metadata()}
        found: list[ServerInfo] = []
        failures: list[ClientError] = []
        for url in self._links:
            try:
                async with self._use(url) as stub:
                    found.append(read_server_info(url, await stub.ServerMetadata(request, **options)))
            except (ServerUnavailableError, ServerTimeoutError) as exc:
                failures.append(exc)
        if not found:
            raise failures[0]
        return found

    async def infer_all(
        self,
        source: AsyncRequestSource,
        target: InferTarget,
        dispatch: Dispatch,
        span: CallSpan,
        on_not_loaded: Callable[[ModelNotLoadedError, str], Awaitable[None]],
    ) -> AsyncGenerator[RowReply, None]:
        """Yield replies in order of arrival; arguments and errors are those of `TritonChannel.infer_all`."""
        sender = AsyncSender(self._links, self._connection, target, dispatch, span, on_not_loaded)
        async with aclosing(sender.infer_all(source)) as replies:
            async for reply in replies:
                yield reply
        if dispatch.is_out_of_time:
            raise dispatch.deadline.error(self._connection.urls[0], self.model)

    async def close(self) -> None:
        """Close the connections and cancel pending calls. Idempotent."""
        for link in self._links.values():
            link.close()
        await asyncio.gather(*self._closing)

    def _close_channel(self, channel: grpc.aio.Channel) -> None:
        closing = asyncio.get_running_loop().create_task(channel.close())
        # the event loop keeps only a weak reference
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _ask(
        self,
        call: Callable[[Any, dict[str, Any]], Awaitable[Any]],
        first: str | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Return the result of a call to the first server that answers it."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        options = {"timeout": timeout_s, "metadata": self._connection.call_metadata()}
        failure: ClientError | None = None
        for url in sorted(self._links, key=lambda url: url != first):
            try:
                async with self._use(url, timeout_s) as stub:
                    return await call(stub, options)
            except (ServerUnavailableError, ServerTimeoutError) as exc:
                # a server that replies says more than one that is unreachable
                if failure is None or isinstance(exc, ModelNotLoadedError):
                    failure = exc
                if type(exc) is ServerUnavailableError and await asyncio.to_thread(speaks_http, url):
                    raise http_port_error(url) from exc
        assert failure is not None
        raise failure

    @asynccontextmanager
    async def _use(self, url: str, timeout_s: float | None = None) -> AsyncIterator[Any]:
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
