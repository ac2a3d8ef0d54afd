"""Synchronous reranking client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .connected_model import ConnectedModel, connect_model
from .manifest import RerankManifest
from .model_client import ModelClient
from .rerank_call import RankedDocument, RerankPreparation
from .texts import repeatable
from .tracing import Operation


class RerankClient(ModelClient[RerankPreparation]):
    """Client of an exported reranker on a Triton server. Thread-safe.

    - An empty list returns an empty result; no request is sent.
    - An empty query or document is scored with the prompt around it.
    - If query and document together are longer than the model's `max_tokens`, the end of the body is truncated, which
      is the end of the document in the official template, and the suffix of the prompt is kept; with `truncate=False`
      InvalidInputError is raised.
    - InvalidInputError is raised, before any request is sent, for a text that is not a str or contains a lone
      surrogate, an element that is not a pair, a `top_k` below 1, and an instruction if the prompt takes none.

    Example:
        ```python
        with RerankClient("localhost:8001", model="myreranker") as client:
            for position, score in client.rerank("how do I sort a list?", documents, top_k=3):
                print(f"{score:.3f}", documents[position])
        ```
    """

    _operation = Operation.RERANK

    @property
    def manifest(self) -> RerankManifest:
        """Manifest of the version that the client uses, read from the server."""
        return self._current.preparation.manifest

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        instruction: str | None = None,
        top_k: int | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
    ) -> list[RankedDocument]:
        """Rank documents by their relevance to a query.

        Args:
            query: Query, without prompt.
            documents: Documents to rank.
            instruction: Task description for the prompt; None for the model's default.
            top_k: Number of documents to return; None for all.
            errors: `"raise"` raises InvalidInputError if the server returned NaN for a document, `"nan"` ranks it last
                with a score of NaN.

        Returns:
            The best documents, highest score first; equal scores are ordered by position.

        Raises:
            InvalidInputError: An argument is invalid, or the server returned NaN for a document.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The reply does not match the manifest.
        """
        repeated = repeatable(documents)
        return self._infer(lambda prepared: prepared.rank(query, repeated, instruction, top_k, errors))

    def score(
        self,
        pairs: Iterable[tuple[str, str]],
        instruction: str | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
    ) -> NDArray[np.float32]:
        """Score (query, document) pairs.

        Args:
            pairs: Pairs of query and document.
            instruction: Task description for the prompt; None for the model's default.
            errors: `"raise"` raises InvalidInputError if the server returned NaN for a pair, `"nan"` returns NaN for
                it.

        Returns:
            float32 `[n]` scores in 0…1, in the order of `pairs`.

        Raises:
            InvalidInputError: An argument is invalid, or the server returned NaN for a pair.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The reply does not match the manifest.
        """
        repeated = repeatable(pairs)
        return self._infer(lambda prepared: prepared.score(repeated, instruction, errors))

    def _prepare(self, config: Any, before: ConnectedModel[RerankManifest] | None) -> RerankPreparation:
        return RerankPreparation(connect_model(config, RerankManifest, self._options, self._servers, before))
