"""`encode_query`, `encode_document` and `similarity` of sentence-transformers, for the asynchronous client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Self

from numpy.typing import NDArray

from .manifest import EmbeddingManifest
from .sentence_encoding import EncodeArguments, Encoding
from .sentence_methods import SentenceSimilarity
from .vector_formats import EmbeddingDtype


class AsyncSentenceMethods(SentenceSimilarity, ABC):
    """Methods of `SentenceTransformer` as coroutines, except for `similarity`; otherwise as `SentenceMethods`."""

    @property
    @abstractmethod
    def manifest(self) -> EmbeddingManifest:
        """Manifest of the model."""

    @abstractmethod
    async def connect(self) -> Self:
        """Read the manifest."""

    @abstractmethod
    async def embed_queries(
        self, texts: Iterable[str], instruction: str | None = None, dim: int | None = None
    ) -> NDArray[Any]:
        """Embed queries."""

    @abstractmethod
    async def embed_documents(self, texts: Iterable[str], dim: int | None = None) -> NDArray[Any]:
        """Embed documents."""

    async def encode_query(
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
        """Embed queries, with the arguments of sentence-transformers; see `EmbeddingClient.encode_query`.

        Args:
            inputs: A query or a list of queries, without prompt.
            prompt: What precedes each query, in the form of the model's prompt; None for the model's prompt.
            instruction: Task description for the prompt, in place of `prompt`; None for the model's default.
            truncate_dim: Number of leading components to keep; None for all.
            precision: Type of the result.
            normalize_embeddings: Whether vectors that were cut become unit vectors again.
            ranges: For 8-bit codes, the range of each component `[2, dim]`.
            **others: Further arguments of sentence-transformers, with a value that changes nothing.

        Returns:
            float32 `[n, dim]`, or `[n, width]` for another `precision`; without the first axis for a single query.
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
        await self.connect()
        encoding = Encoding.create(inputs, given, self.manifest)
        return encoding.finish(await self.embed_queries(encoding.texts, encoding.instruction, **encoding.options))

    async def encode_document(
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
        """Embed documents; see `EmbeddingClient.encode_document`.

        Args:
            inputs: A document or a list of documents, without prompt.
            prompt: What precedes each document; must be the model's prompt, if given.
            truncate_dim: Number of leading components to keep; None for all.
            precision: Type of the result.
            normalize_embeddings: Whether vectors that were cut become unit vectors again.
            ranges: For 8-bit codes, the range of each component `[2, dim]`.
            **others: Further arguments of sentence-transformers, with a value that changes nothing.

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
        await self.connect()
        encoding = Encoding.create(inputs, given, self.manifest)
        return encoding.finish(await self.embed_documents(encoding.texts, **encoding.options))
