"""Asynchronous reranking client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .async_model_client import AsyncModelClient
from .connected_model import ConnectedModel, connect_model
from .manifest import RerankManifest
from .rerank_call import RankedDocument, RerankPreparation
from .texts import count_characters, repeatable
from .tracing import Operation


class AsyncRerankClient(AsyncModelClient[RerankPreparation]):
    """Client of an exported reranker on a Triton server, for the tasks of one event loop.

    Methods, results and errors are those of `RerankClient`.

    Example:
        ```python
        async with AsyncRerankClient("localhost:8001", model="myreranker") as client:
            for position, score in await client.rerank("how do I sort a list?", documents, top_k=3):
                print(f"{score:.3f}", documents[position])
        ```
    """

    _operation = Operation.RERANK

    @property
    def manifest(self) -> RerankManifest:
        """Manifest of the version that the client uses; raises ClientError before the client has connected."""
        return self._preparation.manifest

    async def rerank(
        self,
        query: str,
        documents: Iterable[str],
        instruction: str | None = None,
        top_k: int | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
    ) -> list[RankedDocument]:
        """Rank documents by their relevance to a query; see `RerankClient.rerank`.

        Args:
            query: Query, without prompt.
            documents: Documents to rank.
            instruction: Task description for the prompt; None for the model's default.
            top_k: Number of documents to return; None for all.
            errors: What a NaN for a document does.

        Returns:
            The best documents, highest score first; equal scores are ordered by position.
        """
        repeated = repeatable(documents)
        return await self._infer(
            lambda prepared: prepared.rank(query, repeated, instruction, top_k, errors), count_characters(repeated)
        )

    async def score(
        self,
        pairs: Iterable[tuple[str, str]],
        instruction: str | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
    ) -> NDArray[np.float32]:
        """Score (query, document) pairs; see `RerankClient.score`.

        Args:
            pairs: Pairs of query and document.
            instruction: Task description for the prompt; None for the model's default.
            errors: What a NaN for a pair does.

        Returns:
            float32 `[n]` scores in 0…1, in the order of `pairs`.
        """
        repeated = repeatable(pairs)
        return await self._infer(
            lambda prepared: prepared.score(repeated, instruction, errors), count_characters(repeated)
        )

    def _prepare(self, config: Any, before: ConnectedModel[RerankManifest] | None) -> RerankPreparation:
        return RerankPreparation(connect_model(config, RerankManifest, self._options, self._servers, before))
