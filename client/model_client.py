"""Base class of the synchronous clients: the connection and its lifetime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from .channel import TritonChannel
from .connected_model import DEFAULT_MAX_IN_FLIGHT, DEFAULT_TIMEOUT_S, Call, ClientOptions
from .lost_rows import infer_with_resends

PreparationT = TypeVar("PreparationT")
AnswerT = TypeVar("AnswerT")


class ModelClient(ABC, Generic[PreparationT]):
    """A connection to one model.

    The model's manifest is read from the server when the client is created, which fails if the client cannot use it.
    A call is split into several concurrent requests; results are in the caller's order. Safe to share between threads.
    Only rows that the server lost through another client's invalid request are sent again; whether to retry after
    ServerUnavailableError and ServerOverloadedError is the caller's choice.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        tokenizer: Path | str | None = None,
        repository: Path | str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_rows_per_request: int | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        truncate: bool = True,
    ) -> None:
        """Connect to a model.

        Args:
            url: HOST:PORT of Triton's gRPC port.
            model: Name of the model on the server.
            tokenizer: A tokenizer.json or its directory.
            repository: A model repository on this machine that has the model and its tokenizer. Without `tokenizer` and
                `repository`, the tokenizer comes from the origin that the manifest names.
            timeout_s: Seconds for each request, including its time in the server's queue.
            max_rows_per_request: Most rows of a request; None for as many as the server accepts.
            max_in_flight: Most concurrent requests of one call.
            truncate: Truncate texts that are too long; False raises InvalidInputError.

        Raises:
            ServerError: The server is unreachable or did not answer; see its subclasses.
            ManifestError: The client cannot use the model.
            InvalidInputError: An argument is invalid.
        """
        self._options = ClientOptions(
            tokenizer=tokenizer,
            repository=repository,
            timeout_s=timeout_s,
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
        """What turns a caller's texts into calls of the model that a ModelConfig message describes."""

    def close(self) -> None:
        """Close the connection and cancel pending calls. Idempotent."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _infer(self, call: Call[AnswerT]) -> AnswerT:
        infer = partial(self._channel.infer_all, max_in_flight=self._options.max_in_flight)
        replies = infer_with_resends(infer, call.requests, call.output)
        # closing cancels what is still out when a reply does not fit
        with closing(replies):
            return call.finish(replies)
