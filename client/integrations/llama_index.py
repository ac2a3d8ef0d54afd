"""LlamaIndex: an embedding, and a node postprocessor that reranks. Needs the extra `llama-index`."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from ..embedding import DEFAULT_WINDOW_TEXTS, EmbeddingClient
from ..errors import InvalidInputError
from ..rerank import RerankClient
from .held_client import ClientHolder, HeldClient, Url, hold_client

__all__ = ["Qwen3TritonEmbedding", "Qwen3TritonRerank"]


class Qwen3TritonEmbedding(ClientHolder, BaseEmbedding):
    """Embeddings of a served model. Thread-safe; the asynchronous methods run the synchronous ones in a thread.

    Texts get the model's prompts for queries and documents. Exceptions are those of `EmbeddingClient`. Pickling, which
    `IngestionPipeline.run(num_workers=...)` needs, keeps URL and model: the copy has a connection of its own.

    Example:
        ```python
        embedding = Qwen3TritonEmbedding(url="localhost:8001", model_name="mymodel")
        index = VectorStoreIndex.from_documents(documents, embed_model=embedding)
        ```
    """

    # LlamaIndex's default of 10 is for services that charge by request; the client splits calls by itself
    embed_batch_size: int = Field(default=DEFAULT_WINDOW_TEXTS, gt=0, le=2048)
    """Number of texts in one call of the client."""
    dim: int | None = None
    """Number of leading components to keep, renormalized; None for all."""
    query_instruction: str | None = None
    """Task description for the prompt of queries; None for the model's default."""
    _held: HeldClient[EmbeddingClient] = PrivateAttr()

    def __init__(
        self,
        *,
        model_name: str,
        url: Url | None = None,
        client: EmbeddingClient | None = None,
        dim: int | None = None,
        query_instruction: str | None = None,
        **options: Any,
    ) -> None:
        """Connect to a model, or use an existing client.

        Args:
            model_name: Name of the model on the server. With `client`, a name that distinguishes it from other models
                in LlamaIndex's caches and traces.
            url: `HOST:PORT` of Triton's gRPC port, or a list of servers with the same model.
            client: Client to use in place of `url`; the caller closes it.
            dim: Number of leading components to keep, renormalized; None for all.
            query_instruction: Task description for the prompt of queries; None for the model's default.
            **options: Fields of `BaseEmbedding`, such as `embed_batch_size` and `callback_manager`.

        Raises:
            InvalidInputError: Neither or both of `client` and `url` are given.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The client cannot use the model.
        """
        options.update(model_name=model_name, dim=dim, query_instruction=query_instruction)
        super().__init__(**options)
        self._held = hold_client(EmbeddingClient, client, url, model_name if client is None else None)

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class in serialized data."""
        return "Qwen3TritonEmbedding"

    def _get_query_embedding(self, query: str) -> Embedding:
        vector: Embedding
        [vector] = self._held.client.embed_queries([query], self.query_instruction, self.dim).tolist()
        return vector

    def _get_text_embedding(self, text: str) -> Embedding:
        [vector] = self._get_text_embeddings([text])
        return vector

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = self._held.client.embed_documents(texts, self.dim).tolist()
        return vectors

    # the methods of the base class would block the event loop
    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        # the base class removes what cannot be pickled, such as callbacks, and restores no defaults
        for name, field in type(self).model_fields.items():
            state["__dict__"].setdefault(name, field.get_default(call_default_factory=True))
        return state


class Qwen3TritonRerank(ClientHolder, BaseNodePostprocessor):
    """Node postprocessor that ranks nodes with a served reranker, and keeps the best.

    Nodes are shared with the input; the score, in 0…1, replaces that of the retrieval. Exceptions are those of
    `RerankClient`.

    Example:
        ```python
        reranker = Qwen3TritonRerank(url="localhost:8001", model="myreranker", top_n=3)
        engine = index.as_query_engine(similarity_top_k=50, node_postprocessors=[reranker])
        ```
    """

    model: str
    """Name of the model."""
    top_n: int | None = Field(default=None, gt=0)
    """Number of nodes to keep; None for all."""
    instruction: str | None = None
    """Task description for the prompt; None for the model's default."""
    _held: HeldClient[RerankClient] = PrivateAttr()

    def __init__(
        self,
        *,
        model: str,
        url: Url | None = None,
        client: RerankClient | None = None,
        top_n: int | None = None,
        instruction: str | None = None,
        **options: Any,
    ) -> None:
        """Connect to a model, or use an existing client.

        Args:
            model: Name of the model on the server. With `client`, a name for LlamaIndex's traces.
            url: `HOST:PORT` of Triton's gRPC port, or a list of servers with the same model.
            client: Client to use in place of `url`; the caller closes it.
            top_n: Number of nodes to keep; None for all.
            instruction: Task description for the prompt; None for the model's default.
            **options: Fields of `BaseNodePostprocessor`, such as `callback_manager`.

        Raises:
            InvalidInputError: Neither or both of `client` and `url` are given.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The client cannot use the model.
        """
        options.update(model=model, top_n=top_n, instruction=instruction)
        super().__init__(**options)
        self._held = hold_client(RerankClient, client, url, model if client is None else None)

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class in serialized data."""
        return "Qwen3TritonRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidInputError("nodes are reranked for a query: pass query_str or query_bundle")
        dispatcher = get_dispatcher(__name__)
        top_n = len(nodes) if self.top_n is None else self.top_n
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            ranked = self._rank(nodes, query_bundle.query_str)
            event.on_end(payload={EventPayload.NODES: ranked})
        dispatcher.event(ReRankEndEvent(nodes=ranked))
        return ranked

    def _rank(self, nodes: list[NodeWithScore], query: str) -> list[NodeWithScore]:
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        ranked = self._held.client.rerank(query, texts, self.instruction, self.top_n)
        return [NodeWithScore(node=nodes[position].node, score=score) for position, score in ranked]
