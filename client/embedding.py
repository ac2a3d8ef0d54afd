"""The synchronous embedding client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .connected_model import ClientOptions, connect_model
from .embedding_call import EmbeddingPreparation
from .manifest import EmbeddingManifest
from .model_client import ModelClient


class EmbeddingClient(ModelClient[EmbeddingPreparation]):
    """Embeds texts with an exported model on a Triton server. Safe to share between threads.

    - An empty list gives an array without rows, and no request is sent.
    - An empty text is embedded as its prompt and its end token.
    - A text longer than the model's `max_tokens` is truncated and keeps its end token; with `truncate=False` it raises
      InvalidInputError.
    - InvalidInputError is raised, before anything is sent, for a text that is not a str or has a lone surrogate, a row
      without tokens, a dimension that the model does not offer, and an instruction if its prompt takes none.
    """

    @property
    def manifest(self) -> EmbeddingManifest:
        """The model's manifest, as it was when the client connected."""
        return self._preparation.manifest

    def embed_queries(
        self, texts: Iterable[str], instruction: str | None = None, dim: int | None = None
    ) -> NDArray[np.float32]:
        """Embed queries.

        Args:
            texts: The queries, without prompt.
            instruction: Task description for the prompt; None for the model's default.
            dim: Number of leading components, renormalised; None for all.

        Returns:
            float32 `[n, dim]`, rows of L2 norm 1, in the order of `texts`.

        Raises:
            InvalidInputError: An argument is invalid, or the server answered NaN for a text.
            ServerError: The server is unreachable or did not answer; see its subclasses.
            ManifestError: The reply does not match the manifest.
        """
        return self._infer(self._preparation.queries(texts, instruction, dim))

    def embed_documents(self, texts: Iterable[str], dim: int | None = None) -> NDArray[np.float32]:
        """Embed documents; arguments, result and errors as in `embed_queries`, without an instruction."""
        return self._infer(self._preparation.documents(texts, dim))

    @staticmethod
    def _prepare(config: Any, options: ClientOptions) -> EmbeddingPreparation:
        return EmbeddingPreparation(connect_model(config, EmbeddingManifest, options))
