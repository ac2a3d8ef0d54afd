"""The adapters for LangChain, against a gRPC server."""

from __future__ import annotations

import asyncio

import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient, InvalidInputError, RerankClient

pytest.importorskip("langchain_core", reason="needs the extra langchain")

from langchain_core.documents import Document
from pydantic import ValidationError

from qwen3_triton.client.integrations.langchain import Qwen3TritonEmbeddings, Qwen3TritonRerank

TEXTS = ["", "def f(): pass", "読み込む"]
DOCUMENTS = [Document(text, id=str(index), metadata={"page": index}) for index, text in enumerate(TEXTS)]


def test_vectors_are_those_of_the_client(client: EmbeddingClient) -> None:
    embeddings = Qwen3TritonEmbeddings(client=client)
    assert embeddings.embed_documents(TEXTS) == client.embed_documents(TEXTS).tolist()
    assert [embeddings.embed_query(text) for text in TEXTS] == client.embed_queries(TEXTS).tolist()
    assert embeddings.embed_documents([]) == []


def test_dimension_and_instruction(client: EmbeddingClient) -> None:
    embeddings = Qwen3TritonEmbeddings(client=client, dim=8, query_instruction="find code")
    assert embeddings.embed_documents(TEXTS) == client.embed_documents(TEXTS, dim=8).tolist()
    [expected] = client.embed_queries(["a"], "find code", 8).tolist()
    assert embeddings.embed_query("a") == expected
    assert asyncio.run(embeddings.aembed_query("a")) == expected


def test_asynchronous_methods(client: EmbeddingClient) -> None:
    embeddings = Qwen3TritonEmbeddings(client=client)

    async def embed() -> list[list[list[float]]]:
        return await asyncio.gather(*(embeddings.aembed_documents(TEXTS) for _ in range(4)))

    assert asyncio.run(embed()) == [client.embed_documents(TEXTS).tolist()] * 4


def test_adapters_connect_and_close(triton: FakeTriton, reranking_triton: FakeTriton) -> None:
    with Qwen3TritonEmbeddings(triton.url, MODEL) as embeddings:
        assert len(embeddings.embed_query("a")) == triton.dimension
    with Qwen3TritonRerank(reranking_triton.url, MODEL) as reranker:
        assert len(reranker.compress_documents(DOCUMENTS, "a")) == len(DOCUMENTS)


def test_documents_are_ranked(rerank_client: RerankClient) -> None:
    reranker = Qwen3TritonRerank(client=rerank_client, top_n=2, instruction="find code")
    ranked = rerank_client.rerank("a", TEXTS, "find code", top_k=2)
    expected = [
        Document(TEXTS[position], id=str(position), metadata={"page": position, "relevance_score": score})
        for position, score in ranked
    ]
    assert reranker.compress_documents(DOCUMENTS, "a") == expected
    assert asyncio.run(reranker.acompress_documents(DOCUMENTS, "a")) == expected
    assert [document.metadata for document in DOCUMENTS] == [{"page": 0}, {"page": 1}, {"page": 2}]


def test_no_documents_need_no_request(rerank_client: RerankClient, reranking_triton: FakeTriton) -> None:
    assert Qwen3TritonRerank(client=rerank_client).compress_documents([], "a") == []
    assert reranking_triton.batches == []


def test_errors_are_those_of_the_client(client: EmbeddingClient, rerank_client: RerankClient) -> None:
    with pytest.raises(InvalidInputError, match="dim is 3"):
        Qwen3TritonEmbeddings(client=client, dim=3).embed_query("a")
    with pytest.raises(InvalidInputError, match=r"documents\[0\]"):
        Qwen3TritonRerank(client=rerank_client).compress_documents([Document("#")], "a")
    with pytest.raises(ValidationError, match="top_n"):
        Qwen3TritonRerank(client=rerank_client, top_n=0)
