"""The synchronous reranking client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contract import RerankContract
from .model_client import ModelClient
from .preparation import ClientOptions, connect_model
from .rerank_call import RankedDocument, RerankPreparation


class RerankClient(ModelClient[RerankPreparation]):
    """Queries and documents to scores through an exported reranker on a Triton server.

    Connects when it is made and shares its connection between threads, as `ModelClient` says.

    - An empty list gives an empty answer, without a call.
    - An empty query or document is judged as it is, with the prompt around it.
    - Where query and document together are longer than the model takes, the end of the body is cut, which is the
      document's in the official template, and the suffix that asks for the answer stays whole; BadInput with
      `truncate=False`.
    - BadInput too, before anything is sent: no str, a lone surrogate, no pair, a `top_k` below 1, an
      instruction where the prompt takes none.
    """

    @property
    def contract(self) -> RerankContract:
        """What the model said of itself when the client connected."""
        return self._preparation.contract

    def rerank(
        self, query: str, documents: Iterable[str], instruction: str | None = None, top_k: int | None = None
    ) -> list[RankedDocument]:
        """The best `top_k` of `documents` for `query`, all of them for None, as `(position, score)`.

        Sorted by score, the best first, equal scores by their position; `instruction=None` is the model's default.
        Raises BadInput, ServerError and its kinds, ContractMismatch where the reply is not what the contract promised.
        """
        return self._infer(self._preparation.rank(query, documents, instruction, top_k))

    def score(self, pairs: Iterable[tuple[str, str]], instruction: str | None = None) -> NDArray[np.float32]:
        """FP32 `[n]` scores in 0…1 of pairs of query and document, in their order; otherwise as `rerank`."""
        return self._infer(self._preparation.score(pairs, instruction))

    @staticmethod
    def _prepare(config: Any, options: ClientOptions) -> RerankPreparation:
        return RerankPreparation(connect_model(config, RerankContract, options))
