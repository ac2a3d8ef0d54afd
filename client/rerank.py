"""The synchronous reranking client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .connected_model import ClientOptions, connect_model
from .manifest import RerankManifest
from .model_client import ModelClient
from .rerank_call import RankedDocument, RerankPreparation


class RerankClient(ModelClient[RerankPreparation]):
    """Scores documents for a query with an exported reranker on a Triton server. Safe to share between threads.

    - An empty list gives an empty result, and no request is sent.
    - An empty query or document is scored with the prompt around it.
    - If query and document together are longer than the model's `max_tokens`, the end of the body is truncated, which
      is the document's end in the official template, and the suffix stays whole; with `truncate=False` that raises
      InvalidInputError.
    - InvalidInputError is raised, before anything is sent, for a text that is not a str or has a lone surrogate,
      something that is not a pair, a `top_k` below 1, and an instruction if the prompt takes none.
    """

    @property
    def manifest(self) -> RerankManifest:
        """The model's manifest, as it was when the client connected."""
        return self._preparation.manifest

    def rerank(
        self, query: str, documents: Iterable[str], instruction: str | None = None, top_k: int | None = None
    ) -> list[RankedDocument]:
        """Rank documents for a query.

        Args:
            query: The query.
            documents: The documents.
            instruction: Task description for the prompt; None for the model's default.
            top_k: Number of documents to return; None for all.

        Returns:
            `(position, score)` of the best documents: highest score first, equal scores by position.

        Raises:
            InvalidInputError: An argument is invalid, or the server answered NaN for a document.
            ServerError: The server is unreachable or did not answer; see its subclasses.
            ManifestError: The reply does not match the manifest.
        """
        return self._infer(self._preparation.rank(query, documents, instruction, top_k))

    def score(self, pairs: Iterable[tuple[str, str]], instruction: str | None = None) -> NDArray[np.float32]:
        """Score (query, document) pairs: float32 `[n]`, 0 to 1, in the order of `pairs`. Errors as in `rerank`."""
        return self._infer(self._preparation.score(pairs, instruction))

    @staticmethod
    def _prepare(config: Any, options: ClientOptions) -> RerankPreparation:
        return RerankPreparation(connect_model(config, RerankManifest, options))
