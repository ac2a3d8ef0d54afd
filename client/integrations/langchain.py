"""LangChain: embeddings, and a document compressor that reranks. Needs the extra `langchain`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from pydantic import PositiveInt, PrivateAttr

from ..embedding import EmbeddingClient
from ..rerank import RerankClient
from .held_client import ClientHolder, HeldClient, Url, hold_client

__all__ = ["Qwen3TritonEmbeddings", "Qwen3TritonRerank"]


class Qwen3TritonEmbeddings(ClientHolder, Embeddings):
    """Embeddings of a served model. Thread-safe; the asynchronous methods run the synchronous ones in a thread.

    Texts get the model's prompts for queries and documents. Exceptions are those of `EmbeddingClient`.

    Example:
        ```python
        with Qwen3TritonEmbeddings("localhost:8001", "mymodel") as embeddings:
            store = InMemoryVectorStore(embeddings)
        ```
    """

    _held: HeldClient[EmbeddingClient]

    def __init__(
        self,
        url: Url | None = None,
        model: str | None = None,
        *,
        client: EmbeddingClient | None = None,
        dim: int | None = None,
        query_instruction: str | None = None,
    ) -> None:
        """Connect to a model, or use an existing client.

        Args:
            url: `HOST:PORT` of Triton's gRPC port, or a list of servers with the same model.
            model: Name of the model on the server.
            client: Client to use in place of `url` and `model`; the caller closes it.
            dim: Number of leading components to keep, renormalized; None for all.
            query_instruction: Task description for the prompt of queries; None for the model's default.

        Raises:
            InvalidInputError: Neither or both of a client and a URL with a model are given.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The client cannot use the model.
        """
        self._held = hold_client(EmbeddingClient, client, url, model)
        self._dim = dim
        self._query_instruction = query_instruction

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the unit vector of each document."""
        vectors: list[list[float]] = self._held.client.embed_documents(texts, dim=self._dim).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the unit vector of a query."""
        vector: list[float]
        [vector] = self._held.client.embed_queries([text], self._query_instruction, self._dim).tolist()
        return vector


class Qwen3TritonRerank(ClientHolder, BaseDocumentCompressor):
    """Document compressor that ranks documents with a served reranker, and keeps the best.

    Documents are copied; the copies have the score, in 0…1, in their metadata as `relevance_score`. Exceptions are
    those of `RerankClient`.

    Example:
        ```python
        with Qwen3TritonRerank("localhost:8001", "myreranker", top_n=3) as reranker:
            best = reranker.compress_documents(store.similarity_search(query, k=50), query)
        ```
    """

    top_n: PositiveInt | None
    """Number of documents to keep; None for all."""
    instruction: str | None
    """Task description for the prompt; None for the model's default."""
    _held: HeldClient[RerankClient] = PrivateAttr()

    def __init__(
        self,
        url: Url | None = None,
        model: str | None = None,
        *,
        client: RerankClient | None = None,
        top_n: int | None = None,
        instruction: str | None = None,
    ) -> None:
        """Connect to a model, or use an existing client.

        Args:
            url: `HOST:PORT` of Triton's gRPC port, or a list of servers with the same model.
            model: Name of the model on the server.
            client: Client to use in place of `url` and `model`; the caller closes it.
            top_n: Number of documents to keep; None for all.
            instruction: Task description for the prompt; None for the model's default.

        Raises:
            InvalidInputError: Neither or both of a client and a URL with a model are given.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The client cannot use the model.
        """
        fields: dict[str, Any] = {"top_n": top_n, "instruction": instruction}
        super().__init__(**fields)
        self._held = hold_client(RerankClient, client, url, model)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the best documents, highest score first."""
        del callbacks
        texts = [document.page_content for document in documents]
        ranked = self._held.client.rerank(query, texts, self.instruction, self.top_n)
        return [_with_score(documents[position], score) for position, score in ranked]


def _with_score(document: Document, score: float) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
