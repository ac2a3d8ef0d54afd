"""`encode_query`, `encode_document` and `similarity` of sentence-transformers, for code that was written for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cosine_similarity import similarity
from .manifest import EmbeddingManifest
from .sentence_encoding import EncodeArguments, Encoding, unit_rows
from .vector_formats import EmbeddingDtype


class SentenceSimilarity:
    """`similarity` of sentence-transformers."""

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[np.float32]:
        """Return the cosine of each vector with each other one.

        Args:
            embeddings1: Floats `[n, dim]` or `[dim]`, of any length. The function `similarity` of this package compares
                8-bit codes and bits.
            embeddings2: Floats `[m, dim]` or `[dim]`.

        Returns:
            float32 `[n, m]`, where sentence-transformers returns a tensor.

        Raises:
            InvalidInputError: An argument has another shape or type.
        """
        return similarity(unit_rows(embeddings1, "embeddings1"), unit_rows(embeddings2, "embeddings2"))


class SentenceMethods(SentenceSimilarity, ABC):
    """Methods of `SentenceTransformer`, with results that are equal to its own."""

    @property
    @abstractmethod
    def manifest(self) -> EmbeddingManifest:
        """Manifest of the model."""

    @abstractmethod
    def embed_queries(
        self, texts: Iterable[str], instruction: str | None = None, dim: int | None = None
    ) -> NDArray[Any]:
        """Embed queries."""

    @abstractmethod
    def embed_documents(self, texts: Iterable[str], dim: int | None = None) -> NDArray[Any]:
        """Embed documents."""

    def encode_query(
        self,
        inputs: str | Sequence[str],
        *,
        prompt: str | None = None,
        instruction: str | None = None,
        truncate_dim: int | None = None,
        precision: EmbeddingDtype = "float32",
        normalize_embeddings: bool = False,
        ranges: NDArray[Any] | None = None,
        **others: object,
    ) -> NDArray[Any]:
        """Embed queries, with the arguments of sentence-transformers.

        Args:
            inputs: A query or a list of queries, without prompt.
            prompt: What precedes each query, in the form of the model's prompt; None for the model's prompt.
            instruction: Task description for the prompt, in place of `prompt`; None for the model's default.
            truncate_dim: Number of leading components to keep; None for all.
            precision: Type of the result, as `dtype` of `embed_queries`.
            normalize_embeddings: Whether vectors that were cut become unit vectors again. Uncut ones always are.
            ranges: For 8-bit codes, the range of each component `[2, dim]`; see `fit_ranges`.
            **others: Further arguments of sentence-transformers: `batch_size`, which has no influence, and others with
                a value that changes nothing, such as `show_progress_bar=False`.

        Returns:
            float32 `[n, dim]`, or `[n, width]` for another `precision`; without the first axis for a single query.

        Raises:
            InvalidInputError: An argument is invalid or has no meaning here, or the server returned NaN for a text.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The reply does not match the manifest.
        """
        given = EncodeArguments(
            kind="query",
            prompt=prompt,
            instruction=instruction,
            truncate_dim=truncate_dim,
            precision=precision,
            normalize_embeddings=normalize_embeddings,
            ranges=ranges,
            others=others,
        )
        encoding = Encoding.create(inputs, given, self.manifest)
        return encoding.finish(self.embed_queries(encoding.texts, encoding.instruction, **encoding.options))

    def encode_document(
        self,
        inputs: str | Sequence[str],
        *,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        precision: EmbeddingDtype = "float32",
        normalize_embeddings: bool = False,
        ranges: NDArray[Any] | None = None,
        **others: object,
    ) -> NDArray[Any]:
        """Embed documents; otherwise as `encode_query`.

        Args:
            inputs: A document or a list of documents, without prompt.
            prompt: What precedes each document; must be the model's prompt, if given.
            truncate_dim: Number of leading components to keep; None for all.
            precision: Type of the result, as `dtype` of `embed_documents`.
            normalize_embeddings: Whether vectors that were cut become unit vectors again. Uncut ones always are.
            ranges: For 8-bit codes, the range of each component `[2, dim]`; see `fit_ranges`.
            **others: As for `encode_query`.

        Returns:
            float32 `[n, dim]`, or `[n, width]` for another `precision`; without the first axis for a single document.
        """
        given = EncodeArguments(
            kind="document",
            prompt=prompt,
            truncate_dim=truncate_dim,
            precision=precision,
            normalize_embeddings=normalize_embeddings,
            ranges=ranges,
            others=others,
        )
        encoding = Encoding.create(inputs, given, self.manifest)
        return encoding.finish(self.embed_documents(encoding.texts, **encoding.options))
