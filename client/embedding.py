"""The synchronous embedding client."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .channel import TritonChannel
from .contract import Contract, Task
from .embedding_call import EmbeddingCall, EmbeddingPreparation
from .errors import BadInput
from .messages import read_served_model
from .requests import limit_requests
from .tokenization import load_tokenizer
from .tokenizer_source import find_tokenizer

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_MAX_IN_FLIGHT = 8


class EmbeddingClient:
    """Texts to unit vectors through an exported model on a Triton server.

    Reads the model's contract from the server when it is made, and refuses there and then what does not fit.
    Many texts of a call travel in several requests at once; the answers come in the order of the texts.
    Safe to share between threads. Nothing is tried twice: ServerUnavailable and ServerOverloaded are worth
    another try, when and how often is the caller's choice.

    - An empty list gives an array of no rows, without a call.
    - An empty text is embedded as what is left of it, its prompt and its end token.
    - A text longer than the model's `max_tokens` is cut and keeps its end token;
      BadInput with `truncate=False`.
    - BadInput too, before anything is sent: no str, a lone surrogate, a row without any token, a dimension
      that the model does not offer, an instruction where its prompt takes none.
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
        if max_in_flight < 1:
            raise BadInput(f"max_in_flight is {max_in_flight}, it must be at least 1")
        self._max_in_flight = max_in_flight
        self._channel = TritonChannel(url, model, timeout_s=timeout_s)
        try:
            served = read_served_model(self._channel.model_config(), Task.EMBED)
            source = find_tokenizer(model, served.contract.tokenizer.origin, tokenizer=tokenizer, repository=repository)
            self._preparation = EmbeddingPreparation(
                contract=served.contract,
                tokenizer=load_tokenizer(source, served.contract),
                limits=limit_requests(served.max_batch_rows, max_rows_per_request),
                truncate=truncate,
            )
        except BaseException:
            self._channel.close()
            raise

    @property
    def contract(self) -> Contract:
        """What the model said of itself when the client connected."""
        return self._preparation.contract

    def embed_queries(
        self, texts: Iterable[str], instruction: str | None = None, dim: int | None = None
    ) -> NDArray[np.float32]:
        """FP32 `[n, dim]` unit rows of queries, in the order of `texts`.

        `instruction=None` is the model's default; `dim=None` is its full width. Raises BadInput, ServerError
        and its kinds, ContractMismatch where the reply is not what the contract promised.
        """
        return self._infer(self._preparation.queries(texts, instruction, dim))

    def embed_documents(self, texts: Iterable[str], dim: int | None = None) -> NDArray[np.float32]:
        """FP32 `[n, dim]` unit rows of documents, in the order of `texts`; otherwise as `embed_queries`."""
        return self._infer(self._preparation.documents(texts, dim))

    def close(self) -> None:
        """Nothing; ends the connection and every call on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _infer(self, call: EmbeddingCall) -> NDArray[np.float32]:
        # closing cancels what is still out when a reply does not fit
        with closing(self._channel.infer_all(call.requests, max_in_flight=self._max_in_flight)) as replies:
            return call.finish(replies)
