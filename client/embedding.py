"""The synchronous embedding client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contract import EmbeddingContract
from .embedding_call import EmbeddingPreparation
from .model_client import ModelClient
from .preparation import ClientOptions, connect_model


class EmbeddingClient(ModelClient[EmbeddingPreparation]):
    """Texts to unit vectors through an exported model on a Triton server.

    Connects when it is made and shares its connection between threads, as `ModelClient` says.

    - An empty list gives an array of no rows, without a call.
    - An empty text is embedded as what is left of it, its prompt and its end token.
    - A text longer than the model's `max_tokens` is cut and keeps its end token;
      BadInput with `truncate=False`.
    - BadInput too, before anything is sent: no str, a lone surrogate, a row without any token, a dimension
      that the model does not offer, an instruction where its prompt takes none.
    """

    @property
    def contract(self) -> EmbeddingContract:
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

    @staticmethod
    def _prepare(config: Any, options: ClientOptions) -> EmbeddingPreparation:
        return EmbeddingPreparation(connect_model(config, EmbeddingContract, options))
