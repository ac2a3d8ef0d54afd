"""What the synchronous clients of every task have in common: a connection and its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from .channel import TritonChannel
from .lost_rows import infer_with_resends
from .preparation import DEFAULT_MAX_IN_FLIGHT, DEFAULT_TIMEOUT_S, Call, ClientOptions

PreparationT = TypeVar("PreparationT")
AnswerT = TypeVar("AnswerT")


class ModelClient(ABC, Generic[PreparationT]):
    """A connection to one model.

    Reads the model's contract from the server when it is made, and refuses there and then what does not fit.
    Much of a call travels in several requests at once; the answers come in the caller's order.
    Safe to share between threads. Only rows that the server lost through another client's invalid request are sent
    again; whether to retry after ServerUnavailable and ServerOverloaded is the caller's choice.
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
        """Connects to `model` at `url`, HOST:PORT of Triton's gRPC port.

        `tokenizer` is a tokenizer.json or its directory, `repository` a model repository on this machine;
        without either the contract's origin tells. `timeout_s` is for each request by itself, its wait at
        the server included. `max_rows_per_request=None` is what the server takes, and never more than that.
        `max_in_flight` requests of one call are out at once at most. `truncate=False` refuses long texts.
        Raises ServerError and its kinds, ContractMismatch, BadInput.
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
        """Nothing; ends the connection and every call on it."""
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
