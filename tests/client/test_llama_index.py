"""The adapters for LlamaIndex, against a gRPC server."""

from __future__ import annotations

import asyncio
import pickle
from threading import Lock

import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient, InvalidInputError, RerankClient

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore, TextNode

from qwen3_triton.client.integrations.llama_index import Qwen3TritonEmbedding, Qwen3TritonRerank

TEXTS = ["", "def f(): pass", "読み込む"]
NODES = [NodeWithScore(node=TextNode(text=text, id_=str(index)), score=0.1) for index, text in enumerate(TEXTS)]


class UnpicklableHandler(LlamaDebugHandler):
    def __init__(self) -> None:
        super().__init__(print_trace_on_end=False)
        self.lock = Lock()


def test_vectors_are_those_of_the_client(client: EmbeddingClient) -> None:
    embedding = Qwen3TritonEmbedding(client=client, model_name="acme")
    documents, queries = client.embed_documents(TEXTS).tolist(), client.embed_queries(TEXTS).tolist()
    assert embedding.get_text_embedding_batch(TEXTS) == documents
    assert [embedding.get_text_embedding(text) for text in TEXTS] == documents
    assert [embedding.get_query_embedding(text) for text in TEXTS] == queries


def test_dimension_and_instruction(client: EmbeddingClient) -> None:
    embedding = Qwen3TritonEmbedding(client=client, model_name="acme", dim=8, query_instruction="find code")
    assert embedding.get_text_embedding_batch(TEXTS) == client.embed_documents(TEXTS, dim=8).tolist()
    [expected] = client.embed_queries(["a"], "find code", 8).tolist()
    assert embedding.get_query_embedding("a") == expected


def test_asynchronous_methods_do_not_block_the_loop(client: EmbeddingClient, triton: FakeTriton) -> None:
    embedding = Qwen3TritonEmbedding(client=client, model_name="acme", embed_batch_size=1)
    expected = client.embed_documents(TEXTS).tolist()
    query, loop_is_free = client.embed_queries(["a"]).tolist()[0], asyncio.Event()

    async def embed() -> tuple[list[Embedding], Embedding, Embedding]:
        loop = asyncio.get_running_loop()
        triton.fault = lambda *_: asyncio.run_coroutine_threadsafe(loop_is_free.wait(), loop).result(10)
        loop.call_later(0.01, loop_is_free.set)
        batch, text, query = await asyncio.gather(
            embedding.aget_text_embedding_batch(TEXTS),
            embedding.aget_text_embedding(TEXTS[1]),
            embedding.aget_query_embedding("a"),
        )
        return batch, text, query

    assert asyncio.run(embed()) == (expected, expected[1], query)


def test_one_call_for_many_texts(client: EmbeddingClient, triton: FakeTriton) -> None:
    embedding = Qwen3TritonEmbedding(client=client, model_name="acme")
    embedding.get_text_embedding_batch([f"text {number}" for number in range(40)])
    assert len(triton.batches) == 40 / triton.max_batch_size


def test_fields_for_caches_and_traces(client: EmbeddingClient) -> None:
    embedding = Qwen3TritonEmbedding(client=client, model_name="acme", dim=8, num_workers=2)
    fields = embedding.to_dict()
    assert (fields["class_name"], fields["model_name"]) == ("Qwen3TritonEmbedding", "acme")
    assert (fields["dim"], fields["query_instruction"], fields["num_workers"]) == (8, None, 2)
    assert "client" not in repr(embedding).lower()


def test_pickled_copy_connects_again(triton: FakeTriton) -> None:
    handlers = CallbackManager([UnpicklableHandler()])
    with Qwen3TritonEmbedding(url=triton.url, model_name=MODEL, dim=8, callback_manager=handlers) as embedding:
        expected = embedding.get_text_embedding("a")
        pickled = pickle.dumps(embedding)
    with pickle.loads(pickled) as copied:
        assert copied.get_text_embedding("a") == expected
        assert (copied.model_name, copied.dim, copied.callback_manager.handlers) == (MODEL, 8, [])


def test_existing_client_cannot_be_pickled(client: EmbeddingClient) -> None:
    with pytest.raises(TypeError, match="create it from a URL and a model"):
        pickle.dumps(Qwen3TritonEmbedding(client=client, model_name="acme"))


@pytest.mark.slow
def test_pipeline_with_several_processes(triton: FakeTriton, client: EmbeddingClient) -> None:
    documents = [Document(text=f"text {number}", id_=str(number)) for number in range(6)]
    with Qwen3TritonEmbedding(url=triton.url, model_name=MODEL) as embedding:
        nodes = IngestionPipeline(transformations=[embedding]).run(documents=documents, num_workers=2)
    expected = client.embed_documents([document.text for document in documents]).tolist()
    assert [node.embedding for node in sorted(nodes, key=lambda node: node.id_)] == expected


def test_index_is_searched_with_queries(triton: FakeTriton, rerank_client: RerankClient) -> None:
    documents = [Document(text=text) for text in ("a", "b", "c", "d")]
    with Qwen3TritonEmbedding(url=triton.url, model_name=MODEL) as embedding:
        index = VectorStoreIndex.from_documents(documents, embed_model=embedding)
        found = index.as_retriever(similarity_top_k=3).retrieve("b")
    reranker = Qwen3TritonRerank(client=rerank_client, model="acme", top_n=2)
    ranked = reranker.postprocess_nodes(found, query_str="b")
    expected = rerank_client.rerank("b", [node.text for node in found], top_k=2)
    assert [(node.text, node.score) for node in ranked] == [(found[place].text, score) for place, score in expected]


def test_nodes_are_ranked(rerank_client: RerankClient) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    reranker = Qwen3TritonRerank(
        client=rerank_client, model="acme", instruction="find code", callback_manager=CallbackManager([handler])
    )
    expected = [(str(position), score) for position, score in rerank_client.rerank("a", TEXTS, "find code")]
    ranked = reranker.postprocess_nodes(NODES, query_str="a")
    assert [(node.node_id, node.score) for node in ranked] == expected
    again = asyncio.run(reranker.apostprocess_nodes(NODES, query_str="a"))
    assert [(node.node_id, node.score) for node in again] == expected
    assert {node.score for node in NODES} == {0.1}
    assert len(handler.get_event_pairs(CBEventType.RERANKING)) == 2


def test_metadata_is_ranked_with_the_text(rerank_client: RerankClient) -> None:
    node = TextNode(text="def f(): pass", metadata={"file": "f.py"})
    [ranked] = Qwen3TritonRerank(client=rerank_client, model="acme").postprocess_nodes(
        [NodeWithScore(node=node)], query_str="a"
    )
    [(_, expected)] = rerank_client.rerank("a", ["file: f.py\n\ndef f(): pass"])
    assert ranked.score == expected


def test_reranker_connects_and_closes(reranking_triton: FakeTriton) -> None:
    with Qwen3TritonRerank(url=reranking_triton.url, model=MODEL) as reranker:
        assert reranker.postprocess_nodes([], query_str="a") == []
        assert len(reranker.postprocess_nodes(NODES, query_str="a")) == len(NODES)


def test_reranking_needs_a_query(rerank_client: RerankClient) -> None:
    with pytest.raises(InvalidInputError, match="pass query_str or query_bundle"):
        Qwen3TritonRerank(client=rerank_client, model="acme").postprocess_nodes(NODES)
