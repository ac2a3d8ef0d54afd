"""Base class of the synchronous clients: connection and lifetime."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from numpy.typing import NDArray

from .call_deadline import CallDeadline
from .channel import TritonChannel
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
from .sources import RequestSource, SinglePart
from .tracing import CallSpan, CallTracer, Operation

ResultT = TypeVar("ResultT")


class ModelClient(ABC, Generic[PreparationT]):
    """Connection to one model. Thread-safe.

    Creating a client reads the model's manifest from the server and fails if the client cannot use the model. A call is
    split into concurrent requests, whose size and number follow the server's speed (see `pacing`); results are in the
    caller's order. Requests that a server did not compute are sent again (see `dispatch`), and a call starts again if
    another version of the model was deployed in the meantime, so that its results are all of the same version. If a
    call fails, the exception's attribute `partial` has the results that arrived.
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
        """Connect to a model.

        Args:
            url: `HOST:PORT` of Triton's gRPC port, or a list of servers with the same model, which share the requests.
                A server that fails is left out until it replies again. If a name has several addresses, such as a
                headless service, all of them are used.
            model: Name of the model on the server.
            tokenizer: A tokenizer.json, or the directory that contains it.
            repository: Local model repository that contains the model and its tokenizer. Without `tokenizer` and
                `repository`, the tokenizer is that in the model's configuration on the server or, for models of
                earlier exports, from the origin named in the manifest.
            timeout_s: Timeout of each request in seconds, including its time in the server's queue. Texts that wait
                in the client do not count.
            call_timeout_s: Timeout of a whole call in seconds, retries included; None for no limit. A request that is
                not expected to be answered in time is not sent, so that a call that ends early leaves little work
                behind. For an iterator, the time starts when its first array is asked for.
            retry_timeout_s: How long a request is sent again, in seconds, after the server was unreachable, did not
                have the model or rejected the request because its queue was full; 0 for not at all. The pause between
                two attempts grows from 0.1 to 2 seconds.
            max_rows_per_request: Largest number of rows in a request; None for the server's limit.
            max_in_flight: Largest number of concurrent requests of one call.
            truncate: Truncate texts that are too long; if False, they raise InvalidInputError.
            on_new_version: What happens after another version of the model was deployed. `"follow"` reads its manifest
                and uses it, with a warning in the log; `"refuse"` raises ModelChangedError, for example because an
                index has vectors of the old version.
            tls: TLS of the connection; None for a connection without encryption.
            token: Bearer token, sent in the metadata `authorization`. Anybody on the network can read it unless the
                connection has TLS.
            metadata: Additional gRPC metadata of each request, or a function that returns it.

        Raises:
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The client cannot use the model.
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
        connection = ConnectionOptions.create(url, tls, token, metadata)
        self._servers = len(connection.urls)
        self._tokens_computed = 0
        self._counting = Lock()
        self._reading = Lock()
        self._tracer = CallTracer(self._operation, model, connection.urls)
        self._channel = TritonChannel(model, connection, timeout_s=timeout_s)
        try:
            preparation = self._prepare(self._channel.model_config(), None)
        except BaseException:
            self._channel.close()
            raise
        self._current = CurrentModel(preparation, ", ".join(connection.urls), model, on_new_version)

    @abstractmethod
    def _prepare(self, config: Any, before: ConnectedModel[Any] | None) -> PreparationT:
        """Return what prepares calls of the model that `config`, a ModelConfig message, describes.

        Args:
            config: The message.
            before: The version that the client used before, if any.
        """

    @property
    def tokens_computed(self) -> int:
        """Number of tokens that the server has computed for this client so far, prompts and end tokens included."""
        return self._tokens_computed

    def is_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """Return whether a call can be computed now: a server serves the version that the client uses.

        After a redeploy, the client uses the new version, as a call would.

        Args:
            timeout_s: Timeout for each server in seconds. They are asked in their order, up to one that is ready.

        Returns:
            False if the model is not loaded, no server is reachable, or the client refuses the new version.

        Raises:
            ServerError: A server returned another error, such as for a wrong token, or the client is closed.
            ManifestError: The client cannot use the new version.
        """
        used = self._current.preparation
        try:
            self._channel.check_version(used.model.version, timeout_s)
        except ModelNotLoadedError as exc:
            try:
                return self._follow(used, exc)
            except ModelChangedError:
                return False
        except UNAVAILABLE:
            return False
        return True

    def server_info(self) -> list[ServerInfo]:
        """Return name, version and extensions of each server that is reachable.

        Raises:
            ServerError: No server is reachable, or one returned an error; see the subclasses.
        """
        return self._channel.server_info()

    def close(self) -> None:
        """Close the connection and cancel pending calls. Idempotent."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _infer(self, prepare: Callable[[PreparationT], Call[ResultT]]) -> ResultT:
        """Return the result of the call that `prepare` returns, computed by one version of the model."""
        deadline = CallDeadline.start(self._options.call_timeout_s)
        with self._tracer.start() as span:
            for _ in range(MOST_VERSIONS):
                preparation = self._current.preparation
                call = prepare(preparation)
                span.counts.texts = len(call.texts)
                source = SinglePart(call.requests)
                try:
                    # closing the generator cancels the requests in flight when a reply is invalid
                    with closing(self._replies(source, call.output, preparation, deadline, span)) as replies:
                        return call.finish(_collect(replies, call.new_results()))
                except VersionReplacedError:
                    self._channel.endpoints.forget_failures()
            raise self._current.changed_too_often()

    def _replies(
        self,
        source: RequestSource,
        output: ModelOutput,
        preparation: PreparationT,
        deadline: CallDeadline,
        span: CallSpan,
    ) -> Generator[RowReply, None, None]:
        model = preparation.model
        span.counts.version = model.version

        def on_not_loaded(error: ModelNotLoadedError, url: str) -> None:
            if self._follow(preparation, error, url):
                raise VersionReplacedError from error

        limits = self._options.call_limits(deadline)
        dispatch = Dispatch(self._channel.endpoints, model.pace, output, limits, span.counts)
        target = InferTarget(self._channel.model, model.version, output.names)
        with closing(self._channel.infer_all(source, target, dispatch, span, on_not_loaded)) as replies:
            for reply in replies:
                tokens = reply.request.tokens
                span.counts.tokens += tokens
                with self._counting:
                    self._tokens_computed += tokens
                yield reply

    def _refresh(self) -> PreparationT:
        """Return the preparation for the version that the server serves now."""
        preparation = self._current.preparation
        try:
            self._channel.check_version(preparation.model.version)
        except ModelNotLoadedError as exc:
            self._follow(preparation, exc)
        except (ServerUnavailableError, ServerTimeoutError):
            # the requests are sent until the server is back
            pass
        return self._current.preparation

    def _follow(self, used: PreparationT, error: ModelNotLoadedError, url: str | None = None) -> bool:
        """Use the version that the server has instead of `used`, which it does not serve; return whether there is one.

        Raises:
            ModelChangedError: The client refuses new versions.
            ManifestError: The client cannot use the new version.
        """
        with self._reading:
            for attempt in range(READS):
                if self._current.preparation is not used:
                    return True
                if attempt:
                    time.sleep(WAIT_S)
                try:
                    config = self._channel.model_config(url)
                except (ServerUnavailableError, ServerTimeoutError):
                    # there is no new version, or not yet
                    return False
                if self._current.replace(used, self._prepare(config, used.model), error):
                    return True
        return False


def _collect(replies: Iterable[RowReply], results: RowResults) -> NDArray[Any]:
    try:
        for reply in replies:
            results.add(reply)
    except ServerError as exc:
        exc.partial = results.partial()
        raise
    return results.finish()
