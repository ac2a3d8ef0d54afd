"""Base class of the asynchronous clients: connection and lifetime."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from numpy.typing import NDArray

from .async_channel import AsyncTritonChannel
from .async_sending import AsyncRequestSource
from .async_sources import AsyncSinglePart
from .call_deadline import CallDeadline
from .connected_model import (
    DEFAULT_MAX_IN_FLIGHT,
    DEFAULT_RETRY_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    Call,
    ClientOptions,
    ConnectedModel,
)
from .connection import ConnectionOptions, Metadata, TlsOptions
from .current_model import (
    MOST_VERSIONS,
    READS,
    WAIT_S,
    CurrentModel,
    OnNewVersion,
    PreparationT,
    VersionReplacedError,
    check_on_new_version,
)
from .dispatch import Dispatch
from .errors import (
    UNAVAILABLE,
    ClientError,
    ModelChangedError,
    ModelNotLoadedError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from .messages import InferTarget
from .model_outputs import ModelOutput
from .replies import RowReply, RowResults
from .server_info import READY_TIMEOUT_S, ServerInfo
from .tracing import CallSpan, CallTracer, Operation

ResultT = TypeVar("ResultT")

SMALL_TEXT = 10_000
"""Characters that are tokenized at once; more are tokenized in a thread, so that other tasks are not delayed."""


class AsyncModelClient(ABC, Generic[PreparationT]):
    """Connection to one model, for the tasks of one event loop.

    Behaves as the synchronous client in everything else. The client connects with its first call, with `connect` or
    with `async with`.
    """

    _operation: ClassVar[Operation]

    def __init__(
        self,
        url: str | Sequence[str],
        model: str,
        *,
        tokenizer: Path | str | None = None,
        repository: Path | str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        call_timeout_s: float | None = None,
        retry_timeout_s: float = DEFAULT_RETRY_TIMEOUT_S,
        max_rows_per_request: int | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        truncate: bool = True,
        on_new_version: OnNewVersion = "follow",
        tls: TlsOptions | None = None,
        token: str | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Create a client without connecting; arguments are those of the synchronous client.

        Raises:
            InvalidInputError: An argument is invalid.
        """
        check_on_new_version(on_new_version)
        self._options = ClientOptions(
            tokenizer=tokenizer,
            repository=repository,
            timeout_s=timeout_s,
            call_timeout_s=call_timeout_s,
            retry_timeout_s=retry_timeout_s,
            max_rows_per_request=max_rows_per_request,
            max_in_flight=max_in_flight,
            truncate=truncate,
        )
        self._connection = ConnectionOptions.create(url, tls, token, metadata)
        self._on_new_version: OnNewVersion = on_new_version
        self._servers = len(self._connection.urls)
        self._tokens_computed = 0
        self._reading = asyncio.Lock()
        self._tracer = CallTracer(self._operation, model, self._connection.urls)
        self._channel = AsyncTritonChannel(model, self._connection, timeout_s=timeout_s)
        self._connected: CurrentModel[PreparationT] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @abstractmethod
    def _prepare(self, config: Any, before: ConnectedModel[Any] | None) -> PreparationT:
        """Return what prepares calls of the model that `config`, a ModelConfig message, describes.

        Args:
            config: The message.
            before: The version that the client used before, if any.
        """

    @property
    def _preparation(self) -> PreparationT:
        """What prepares calls, once the client has connected."""
        if self._connected is None:
            raise ClientError("the client has not connected yet: await client.connect() first")
        return self._connected.preparation

    @property
    def tokens_computed(self) -> int:
        """Number of tokens that the server has computed for this client so far, prompts and end tokens included."""
        return self._tokens_computed

    async def connect(self) -> Self:
        """Read the model's manifest from the server, unless the client is connected.

        Raises:
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The client cannot use the model.
            InvalidInputError: There is no tokenizer at the given path.
        """
        await self._current()
        return self

    async def is_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """Return whether a call can be computed now; see the synchronous client. Connects if the model is ready.

        Args:
            timeout_s: Timeout for each server in seconds.
        """
        used = None if self._connected is None else self._connected.preparation
        try:
            await self._channel.check_version("" if used is None else used.model.version, timeout_s)
            await self._current()
        except ModelNotLoadedError as exc:
            try:
                return used is not None and await self._follow(used, exc)
            except ModelChangedError:
                return False
        except UNAVAILABLE:
            return False
        return True

    async def server_info(self) -> list[ServerInfo]:
        """Return name, version and extensions of each server that is reachable; see the synchronous client."""
        return await self._channel.server_info()

    async def close(self) -> None:
        """Close the connection and cancel pending calls. Idempotent."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        try:
            return await self.connect()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _current(self) -> CurrentModel[PreparationT]:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise ClientError("the client belongs to another event loop: create a client in each event loop")
        if self._connected is None:
            async with self._reading:
                if self._connected is None:
                    config = await self._channel.model_config()
                    # loading a tokenizer takes up to a second
                    preparation = await asyncio.to_thread(self._prepare, config, None)
                    where = ", ".join(self._connection.urls)
                    self._connected = CurrentModel(preparation, where, self._channel.model, self._on_new_version)
        return self._connected

    async def _infer(self, prepare: Callable[[PreparationT], Call[ResultT]], characters: int) -> ResultT:
        """Return the result of the call that `prepare` returns, computed by one version of the model.

        Args:
            prepare: Prepares the call.
            characters: About how many characters it tokenizes.
        """
        deadline = CallDeadline.start(self._options.call_timeout_s)
        with self._tracer.start() as span:
            current = await self._current()
            for _ in range(MOST_VERSIONS):
                preparation = current.preparation
                call = await _run(prepare, preparation, characters)
                span.counts.texts = len(call.texts)
                source = AsyncSinglePart(call.requests)
                try:
                    # closing the generator cancels the requests in flight when a reply is invalid
                    async with aclosing(self._replies(source, call.output, preparation, deadline, span)) as replies:
                        return call.finish(await _collect(replies, call.new_results()))
                except VersionReplacedError:
                    self._channel.endpoints.forget_failures()
            raise current.changed_too_often()

    async def _replies(
        self,
        source: AsyncRequestSource,
        output: ModelOutput,
        preparation: PreparationT,
        deadline: CallDeadline,
        span: CallSpan,
    ) -> AsyncGenerator[RowReply, None]:
        model = preparation.model
        span.counts.version = model.version

        async def on_not_loaded(error: ModelNotLoadedError, url: str) -> None:
            if await self._follow(preparation, error, url):
                raise VersionReplacedError from error

        limits = self._options.call_limits(deadline)
        dispatch = Dispatch(self._channel.endpoints, model.pace, output, limits, span.counts)
        target = InferTarget(self._channel.model, model.version, output.names)
        async with aclosing(self._channel.infer_all(source, target, dispatch, span, on_not_loaded)) as replies:
            async for reply in replies:
                tokens = reply.request.tokens
                span.counts.tokens += tokens
                self._tokens_computed += tokens
                yield reply

    async def _refresh(self) -> PreparationT:
        """Return the preparation for the version that the server serves now."""
        current = await self._current()
        preparation = current.preparation
        try:
            await self._channel.check_version(preparation.model.version)
        except ModelNotLoadedError as exc:
            await self._follow(preparation, exc)
        except (ServerUnavailableError, ServerTimeoutError):
            # the requests are sent until the server is back
            pass
        return current.preparation

    async def _follow(self, used: PreparationT, error: ModelNotLoadedError, url: str | None = None) -> bool:
        """Use the version that the server has instead of `used`, which it does not serve; return whether there is one.

        Raises:
            ModelChangedError: The client refuses new versions.
            ManifestError: The client cannot use the new version.
        """
        current = await self._current()
        async with self._reading:
            for attempt in range(READS):
                if current.preparation is not used:
                    return True
                if attempt:
                    await asyncio.sleep(WAIT_S)
                try:
                    config = await self._channel.model_config(url)
                except (ServerUnavailableError, ServerTimeoutError):
                    # there is no new version, or not yet
                    return False
                if current.replace(used, await asyncio.to_thread(self._prepare, config, used.model), error):
                    return True
        return False


async def _run(prepare: Callable[[PreparationT], ResultT], preparation: PreparationT, characters: int) -> ResultT:
    if characters <= SMALL_TEXT:
        return prepare(preparation)
    return await asyncio.to_thread(prepare, preparation)


async def _collect(replies: AsyncIterable[RowReply], results: RowResults) -> NDArray[Any]:
    try:
        async for reply in replies:
            results.add(reply)
    except ServerError as exc:
        exc.partial = results.partial()
        raise
    return results.finish()
