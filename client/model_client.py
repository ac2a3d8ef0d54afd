"""Base class of the synchronous clients: connection and lifetime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from .call_deadline import CallDeadline
from .channel import TritonChannel
from .connected_model import DEFAULT_MAX_IN_FLIGHT, DEFAULT_TIMEOUT_S, Call, ClientOptions
from .lost_rows import ExpectedOutput, infer_with_resends
from .pacing import Pace
from .replies import RowReply
from .requests import RowRequest

PreparationT = TypeVar("PreparationT", bound="Preparation")
ResultT = TypeVar("ResultT")


class Preparation(Protocol):
    """What prepares the calls of one model."""

    @property
    def pace(self) -> Pace:
        """The pace that all calls share."""


class ModelClient(ABC, Generic[PreparationT]):
    """Connection to one model. Thread-safe.

    Creating a client reads the model's manifest from the server and fails if the client cannot use the model. A call is
    split into concurrent requests, whose size and number follow the server's speed (see `pacing`); results are in the
    caller's order. If a call fails, the exception's attribute `partial` has the results that arrived. The client does
    not retry failed requests, so the
    caller decides whether to retry after ServerUnavailableError and ServerOverloadedError. The one exception is rows
    that the server lost because of another client's invalid request: they are sent again.
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
    ) -> None:
        """Connect to a model.

        Args:
            url: `HOST:PORT` of Triton's gRPC port.
            model: Name of the model on the server.
            tokenizer: A tokenizer.json, or the directory that contains it.
            repository: Local model repository that contains the model and its tokenizer. Without `tokenizer` and
                `repository`, the tokenizer is loaded from the origin named in the manifest.
            timeout_s: Timeout of each request in seconds, including its time in the server's queue. Texts that wait
                in the client do not count.
            call_timeout_s: Timeout of a whole call in seconds; None for no limit. A request that is not expected to be
                answered in time is not sent, so that a call that ends early leaves little work behind. For an iterator,
                the time starts when its first array is asked for.
            max_rows_per_request: Largest number of rows in a request; None for the server's limit.
            max_in_flight: Largest number of concurrent requests of one call.
            truncate: Truncate texts that are too long; if False, they raise InvalidInputError.

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
        self._channel = TritonChannel(url, model, timeout_s=timeout_s)
        try:
            self._preparation = self._prepare(self._channel.model_config(), self._options)
        except BaseException:
            self._channel.close()
            raise

    @staticmethod
    @abstractmethod
    def _prepare(config: Any, options: ClientOptions) -> PreparationT:
        """Return what prepares calls of the model that `config`, a ModelConfig message, describes."""

    def close(self) -> None:
        """Close the connection and cancel pending calls. Idempotent."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _infer(self, call: Call[ResultT]) -> ResultT:
        # closing the generator cancels the requests in flight when a reply is invalid
        with closing(self._replies(call.requests, call.output)) as replies:
            return call.finish(replies)

    def _replies(self, requests: Iterable[RowRequest], output: ExpectedOutput) -> Generator[RowReply, None, None]:
        infer = partial(
            self._channel.infer_all,
            output=output.name,
            pace=self._preparation.pace,
            max_in_flight=self._options.max_in_flight,
            deadline=CallDeadline.start(self._options.call_timeout_s),
        )
        return infer_with_resends(infer, requests, output)
