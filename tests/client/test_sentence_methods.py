"""`encode_query`, `encode_document` and `similarity`, with the arguments of sentence-transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton
from sample_manifest import DIMENSION, make_manifest

from qwen3_triton.client import EmbeddingClient, EmbeddingManifest, InvalidInputError, Prompts, fit_ranges

pytestmark = pytest.mark.usefixtures("both_clients")

TEXTS = ["how do I sort a list?", "what is a list?", ""]


@pytest.fixture
def client(triton: FakeTriton, both_clients: None) -> Iterator[EmbeddingClient]:  # noqa: ARG001
    with EmbeddingClient(triton.url, MODEL) as connected:
        yield connected


def test_lists(client: EmbeddingClient) -> None:
    np.testing.assert_array_equal(client.encode_query(TEXTS), client.embed_queries(TEXTS))
    np.testing.assert_array_equal(client.encode_document(tuple(TEXTS)), client.embed_documents(TEXTS))
    np.testing.assert_array_equal(client.encode_query(np.asarray(TEXTS)), client.embed_queries(TEXTS))  # type: ignore[arg-type]
    assert client.encode_document([]).shape == (0, DIMENSION)


def test_one_text_gives_one_vector(client: EmbeddingClient) -> None:
    np.testing.assert_array_equal(client.encode_query(TEXTS[0]), client.embed_queries(TEXTS)[0])
    np.testing.assert_array_equal(client.encode_document(TEXTS[0]), client.embed_documents(TEXTS)[0])
    assert client.encode_document(TEXTS[0], precision="ubinary").shape == (DIMENSION // 8,)
    assert client.encode_query(inputs=TEXTS[0], truncate_dim=8).shape == (8,)


def test_cut_vectors_are_normalized_on_request_only(client: EmbeddingClient) -> None:
    whole = client.embed_documents(TEXTS)
    np.testing.assert_array_equal(client.encode_document(TEXTS, truncate_dim=8), whole[:, :8])
    np.testing.assert_array_equal(
        client.encode_document(TEXTS, truncate_dim=8, normalize_embeddings=True), client.embed_documents(TEXTS, dim=8)
    )
    np.testing.assert_array_equal(client.encode_document(TEXTS, normalize_embeddings=True), whole)


@pytest.mark.parametrize("precision", ["float16", "int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("truncate_dim", [None, 8])
def test_precision(client: EmbeddingClient, precision: Any, truncate_dim: int | None) -> None:
    ranges = fit_ranges(client.embed_documents(TEXTS, dim=truncate_dim))
    expected = client.embed_documents(TEXTS, dim=truncate_dim, dtype=precision, ranges=ranges)
    found = client.encode_document(
        TEXTS, truncate_dim=truncate_dim, precision=precision, normalize_embeddings=True, ranges=ranges
    )
    np.testing.assert_array_equal(found, expected)
    if "binary" in precision:
        np.testing.assert_array_equal(
            client.encode_document(TEXTS, truncate_dim=truncate_dim, precision=precision), expected
        )


def test_a_prompt_of_the_models_form(client: EmbeddingClient) -> None:
    found = client.encode_query(TEXTS, prompt="Instruct: sort\nQuery:")
    np.testing.assert_array_equal(found, client.embed_queries(TEXTS, "sort"))
    np.testing.assert_array_equal(client.encode_query(TEXTS, instruction="sort"), found)
    np.testing.assert_array_equal(client.encode_query(TEXTS, prompt_name="query"), client.embed_queries(TEXTS))
    np.testing.assert_array_equal(client.encode_document(TEXTS, prompt=""), client.embed_documents(TEXTS))


@pytest.mark.parametrize("prompt", ["query: ", "", "Instruct: sort", "Instruct: sort\nQuery: ", "\nQuery:", "Query:"])
def test_other_prompts(triton: FakeTriton, client: EmbeddingClient, prompt: str) -> None:
    with pytest.raises(InvalidInputError, match=r"the model's prompt has the form .*Instruct: "):
        client.encode_query(TEXTS, prompt=prompt)
    with pytest.raises(InvalidInputError, match="give one of them"):
        client.encode_query(TEXTS, prompt=prompt, instruction="sort")
    assert triton.batches == []


def test_prompts_of_documents(tokenizer_file: Path) -> None:
    prompts = Prompts(query="{text}", document="{instruction}: {text}", default_instruction="find")
    manifest = make_manifest(tokenizer_file, prompts=prompts)
    with FakeTriton(manifest.to_json(), DIMENSION) as server, EmbeddingClient(server.url, MODEL) as client:
        np.testing.assert_array_equal(client.encode_document(TEXTS, prompt="find: "), client.embed_documents(TEXTS))
        with pytest.raises(InvalidInputError, match="documents have the model's"):
            client.encode_document(TEXTS, prompt="sort: ")


def test_a_prompt_after_the_text(tokenizer_file: Path, manifest: EmbeddingManifest) -> None:
    prompts = dataclasses.replace(manifest.prompts, document="{text} end")
    with (
        FakeTriton(make_manifest(tokenizer_file, prompts=prompts).to_json(), DIMENSION) as server,
        EmbeddingClient(server.url, MODEL) as client,
        pytest.raises(InvalidInputError, match=r"has the form '\{text\} end'"),
    ):
        client.encode_document(TEXTS, prompt="")


def test_arguments_that_change_nothing(client: EmbeddingClient) -> None:
    arguments: dict[str, Any] = {
        "prompt_name": None,
        "batch_size": 64,
        "show_progress_bar": False,
        "output_value": "sentence_embedding",
        "convert_to_numpy": True,
        "convert_to_tensor": False,
        "device": None,
        "pool": None,
        "chunk_size": None,
    }
    np.testing.assert_array_equal(client.encode_query(TEXTS, **arguments), client.embed_queries(TEXTS))
    np.testing.assert_array_equal(client.encode_document(TEXTS, **arguments), client.embed_documents(TEXTS))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"convert_to_tensor": True}, "convert_to_tensor is True, which has no meaning here: results are numpy arrays"),
        ({"convert_to_numpy": False}, "results are numpy arrays"),
        ({"show_progress_bar": True}, "shows no progress"),
        ({"device": "cuda"}, "device is 'cuda', which has no meaning here: the server has the model"),
        ({"device": ["cuda:0", "cuda:1"]}, "the server has the model"),
        ({"pool": {"processes": []}}, "list of servers"),
        ({"chunk_size": 100}, "the client chooses"),
        ({"output_value": "token_embeddings"}, "the embeddings of texts only"),
        ({"prompt_name": "sts"}, "prompt_name is 'sts'"),
        ({"task": "retrieval"}, "task is not an argument of encode_query: remove it"),
        ({"truncate_dim": 3}, "dim is 3, but the model offers 4 to 16"),
        ({"precision": "int4"}, "'int4', expected one of"),
        ({"precision": "int8"}, "need ranges"),
    ],
)
def test_arguments_without_meaning(
    triton: FakeTriton, client: EmbeddingClient, argument: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        client.encode_query(TEXTS, **argument)
    assert triton.batches == []


def test_similarity(client: EmbeddingClient) -> None:
    queries, documents = client.encode_query(TEXTS), client.encode_document(TEXTS)
    expected = (queries @ documents.T).astype(np.float32)
    np.testing.assert_allclose(client.similarity(queries, documents), expected, atol=1e-6)
    np.testing.assert_allclose(client.similarity(list(3 * queries), documents.astype(np.float64)), expected, atol=1e-6)
    np.testing.assert_allclose(client.similarity(queries[0], documents), expected[:1], atol=1e-6)
    np.testing.assert_allclose(client.similarity(queries[0], documents[1]), expected[:1, 1:2], atol=1e-6)
    np.testing.assert_array_equal(client.similarity(np.zeros(4), np.ones(4)), [[0]])
    with pytest.raises(InvalidInputError, match="embeddings2 are of type int8, expected float32"):
        client.similarity(queries, documents.astype(np.int8))
    with pytest.raises(InvalidInputError, match=r"embeddings1 have shape \[1, 1, 16\]"):
        client.similarity(queries[None, :1], documents)
