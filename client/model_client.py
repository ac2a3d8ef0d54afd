"""Base class of the synchronous clients: connection and lifetime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np

from .call_deadline import CallDeadline
from .channel import TritonChannel
from .connected_model import DEFAULT_MAX_IN_FLIGHT, DEFAULT_TIMEOUT_S, Call, ClientOptions, ConnectedModel
from .current_model import CurrentModel, OnNewVersion, PreparationT
from .errors import ModelChangedError, ModelNotLoadedError
from .lost_rows import ExpectedOutput, infer_with_resends
from .replies import RowReply
from .requests import RowRequest

ResultT = TypeVar("ResultT")

_MOST_VERSIONS = 3
"""How many versions a call may be computed with before it fails."""


class ModelClient(ABC, Generic[PreparationT]):
    """Connection to one model. Thread-safe.

    Creating a client reads the model's manifest from the server and fails if the client cannot use the model. A call is
    split into concurrent requests, whose size and number follow the server's speed (see `pacing`); results are in the
    caller's order. If a call fails, the exception's attribute `partial` has the results that arrived. The client does
    not retry failed requests, so the caller decides whether to retry after ServerUnavailableError and
    ServerOverloadedError, with two exceptions: rows that the server lost because of another client's invalid request
    are sent again, and a call starts again if another version of the model was deployed in the meantime, so that its
    results are all of the same version.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        tokenizer: Path | str | None = None,
        repository: Path | str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        call_timeout_s: float | None = None,
        max_rows_per_request: int | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        truncate: bool = True,
        on_new_version: OnNewVersion = "follow",
    ) -> None:
        """Connect to a model.

        Args:
            url: `HOST:PORT` of Triton's gRPC port.
            model: Name of the model on the server.
            tokenizer: A tokenizer.json, or the directory that contains it.
            repository: Local model repository that contains the model and its tokenizer. Without `tokenizer` and
                `repository`, the tokenizer is that in the model's configuration on the server or, for models of
                earlier exports, from the origin named in the manifest.
            timeout_s: Timeout of each request in seconds, including its time in the server's queue. Texts that wait
                in the client do not count.
            call_timeout_s: Timeout of a whole call in seconds; None for no limit. A request that is not expected to be
                answered in time is not sent, so that a call that ends early leaves little work behind. For an iterator,
                the time starts when its first array is asked for.
            max_rows_per_request: Largest number of rows in a request; None for the server's limit.
            max_in_flight: Largest number of concurrent requests of one call.
            truncate: Truncate texts that are too long; if False, they raise InvalidInputError.
            on_new_version: What happens after another version of the model was deployed. `"follow"` reads its manifest
                and uses it, with a warning in the log; `"refuse"` raises ModelChangedError, for example because an
                index has vectors of the old version.

        Raises:
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The client cannot use the model.
            InvalidInputError: An argument is invalid.
        """
        self._options = ClientOptions(
            tokenizer=tokenizer,
            repository=repository,
            timeout_s=timeout_s,
            call_timeout_s=call_timeout_s,
            max_rows_per_request=max_rows_per_request,
            max_in_flight=max_in_flight,
            truncate=truncate,
        )
        self._tokens_computed = 0
        self._lock = Lock()
        self._channel = TritonChannel(url, model, timeout_s=timeout_s)
        try:
            self._current = CurrentModel(self._channel, self._prepare, on_new_version)
        except BaseException:
            self._channel.close()
            raise

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
        for _ in range(_MOST_VERSIONS):
            preparation = self._current.preparation
            call = prepare(preparation)
            try:
                # closing the generator cancels the requests in flight when a reply is invalid
                with closing(self._replies(call.requests, call.output, preparation, deadline)) as replies:
                    return call.finish(replies)
            except ModelNotLoadedError as exc:
                self._current.follow(preparation, exc)
        raise ModelChangedError(
            f"{self._channel.url}: model {self._channel.model!r} was changed {_MOST_VERSIONS} times during one call: "
            "call again when all servers have the same version"
        )

    def _replies(
        self, requests: Iterable[RowRequest], output: ExpectedOutput, preparation: PreparationT, deadline: CallDeadline
    ) -> Generator[RowReply, None, None]:
        infer = partial(
            self._channel.infer_all,
            version=preparation.model.version,
            output=output.name,
            pace=preparation.model.pace,
            max_in_flight=self._options.max_in_flight,
            deadline=deadline,
        )
        with closing(infer_with_resends(infer, requests, output)) as replies:
            for reply in replies:
                with self._lock:
                    self._tokens_computed += int(np.count_nonzero(reply.request.input_ids >= 0))
                yield reply
