"""Another version of the model is deployed while a client is connected."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton, row_vector
from numpy.typing import NDArray
from sample_manifest import DIMENSION, END_TOKEN_ID, make_manifest, write_tokenizer
from tokenizers import Tokenizer

from qwen3_triton.client import (
    EmbeddingClient,
    EmbeddingManifest,
    ManifestError,
    ModelChangedError,
    ModelNotLoadedError,
    RerankClient,
    RerankManifest,
    TokenizerIdentity,
)
from qwen3_triton.client.tokenization import load_tokenizer
from qwen3_triton.client.tokenizer_source import TokenizerFile

pytestmark = pytest.mark.usefixtures("both_clients")

TEXTS = [f"text {number}" for number in range(40)]


@pytest.fixture
def versions(triton: FakeTriton, manifest: EmbeddingManifest) -> Iterator[list[EmbeddingManifest]]:
    """Manifests of versions 1, 2, … with different prompts, of which the server has version 1."""
    found = [
        dataclasses.replace(manifest, prompts=dataclasses.replace(manifest.prompts, document=f"v{number} {{text}}"))
        for number in (1, 2, 3, 4, 5)
    ]
    triton.deploy(found[0], 1)
    yield found


@pytest.fixture
def client(versions: list[EmbeddingManifest], triton: FakeTriton) -> Iterator[EmbeddingClient]:  # noqa: ARG001
    with EmbeddingClient(triton.url, model=MODEL, timeout_s=10, retry_timeout_s=0.5) as connected:
        yield connected


def expected(tokenizer_file: Path, version: int, texts: list[str]) -> NDArray[np.float32]:
    """Return the vectors of documents with the prompt of `version`, computed independently."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    rows = [tokenizer.encode(f"v{version} {text}", add_special_tokens=False).ids for text in texts]
    return np.stack([row_vector([*row, END_TOKEN_ID], DIMENSION) for row in rows])


@pytest.mark.parametrize("ignores_version", [False, True], ids=["Triton", "a proxy that drops the version"])
def test_call_after_a_redeploy(
    triton: FakeTriton,
    client: EmbeddingClient,
    versions: list[EmbeddingManifest],
    tokenizer_file: Path,
    caplog: pytest.LogCaptureFixture,
    ignores_version: bool,
) -> None:
    triton.ignores_version = ignores_version
    np.testing.assert_array_equal(client.embed_documents(TEXTS), expected(tokenizer_file, 1, TEXTS))
    assert triton.batches
    triton.deploy(versions[1], 2)
    with caplog.at_level(logging.WARNING, "qwen3_triton"):
        # a generator can be read only once, the call is prepared twice
        vectors = client.embed_documents(text for text in TEXTS)
    np.testing.assert_array_equal(vectors, expected(tokenizer_file, 2, TEXTS))
    [record] = caplog.records
    assert record.getMessage().endswith("'demo' was changed from version 1 to 2; its manifest was read again")
    assert client.manifest.model_version == 2
    assert client.embed_documents(["a"]).shape == (1, DIMENSION)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_redeploy_during_a_call(
    triton: FakeTriton, client: EmbeddingClient, versions: list[EmbeddingManifest], tokenizer_file: Path, at: int
) -> None:
    """No result mixes the vectors of two versions."""

    def fault(number: int, _: Any) -> None:
        if number == at:
            triton.deploy(versions[1], 2)

    triton.fault = fault
    np.testing.assert_array_equal(client.embed_documents(TEXTS), expected(tokenizer_file, 2, TEXTS))


def test_servers_that_keep_changing(
    triton: FakeTriton, client: EmbeddingClient, versions: list[EmbeddingManifest]
) -> None:
    def fault(_: int, context: Any) -> None:
        number = int(triton.version) + 1
        triton.deploy(versions[number - 1], number)
        context.abort(grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'demo' version is not at ready state")

    triton.fault = fault
    with pytest.raises(ModelChangedError, match="was changed 3 times during one call"):
        client.embed_documents(["a"])


def test_client_that_refuses_new_versions(triton: FakeTriton, versions: list[EmbeddingManifest]) -> None:
    with EmbeddingClient(triton.url, MODEL, on_new_version="refuse") as client:
        assert client.embed_documents(TEXTS).shape == (40, DIMENSION)
        triton.deploy(versions[1], 2)
        for _ in range(2):
            with pytest.raises(ModelChangedError, match="from version 1 to 2: create a new client to use it"):
                client.embed_documents(TEXTS)
            with pytest.raises(ModelChangedError, match="from version 1 to 2"):
                next(client.iter_documents(TEXTS))
        assert client.manifest.model_version == 1
        triton.deploy(versions[0], 1)
        assert client.embed_documents(TEXTS).shape == (40, DIMENSION)


def test_on_new_version_is_checked(triton: FakeTriton) -> None:
    with pytest.raises(ValueError, match="on_new_version is 'ignore'; it must be 'follow' or 'refuse'"):
        EmbeddingClient(triton.url, MODEL, on_new_version="ignore")  # type: ignore[arg-type]


def test_iterator_uses_the_version_of_its_start(
    triton: FakeTriton, client: EmbeddingClient, versions: list[EmbeddingManifest], tokenizer_file: Path
) -> None:
    arrays = client.iter_documents(TEXTS, window_texts=10)
    triton.deploy(versions[1], 2)
    np.testing.assert_array_equal(next(arrays), expected(tokenizer_file, 2, TEXTS[:10]))
    assert len(np.concatenate(list(arrays))) == 30


def test_redeploy_during_an_iterator(
    triton: FakeTriton, client: EmbeddingClient, versions: list[EmbeddingManifest], tokenizer_file: Path
) -> None:
    texts = TEXTS * 20
    found = []

    def iterate() -> None:
        for vectors in client.iter_documents(texts, window_texts=10):
            found.append(vectors)
            triton.deploy(versions[1], 2)

    with pytest.raises(ModelChangedError, match="while version 1 computed an iterator's vectors"):
        iterate()
    vectors = np.concatenate(found)
    assert 10 <= len(vectors) < len(texts)
    np.testing.assert_array_equal(vectors, expected(tokenizer_file, 1, texts[: len(vectors)]))
    np.testing.assert_array_equal(
        np.concatenate(list(client.iter_documents(TEXTS))), expected(tokenizer_file, 2, TEXTS)
    )


def test_tokenizer_is_loaded_again_only_if_it_changed(
    triton: FakeTriton, versions: list[EmbeddingManifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(file: TokenizerFile, identity: TokenizerIdentity) -> Tokenizer:
        loaded.append(file)
        return load_tokenizer(file, identity)

    monkeypatch.setattr("qwen3_triton.client.connected_model.load_tokenizer", load)
    with EmbeddingClient(triton.url, MODEL) as client:
        triton.deploy(versions[1], 2)
        client.embed_documents(["a"])
        assert len(loaded) == 1
        other = tmp_path / "tokenizer.json"
        write_tokenizer(other)
        other.write_text(other.read_text() + "\n")
        triton.deploy(make_manifest(other), 3)
        client.embed_documents(["a"])
        assert len(loaded) == 2


def test_new_version_that_the_client_cannot_use(
    triton: FakeTriton, client: EmbeddingClient, rerank_manifest: RerankManifest
) -> None:
    triton.deploy(rerank_manifest, 2)
    with pytest.raises(ManifestError, match="is for task rerank"):
        client.embed_documents(["a"])


def test_manifest_of_a_version_that_is_not_served(triton: FakeTriton, client: EmbeddingClient) -> None:
    triton.version = "2"
    with pytest.raises(ModelNotLoadedError, match="version 1 is not at ready state"):
        client.embed_documents(["a"])


def test_earlier_exports_name_their_version_in_the_policy(
    triton: FakeTriton, manifest: EmbeddingManifest, versions: list[EmbeddingManifest], tokenizer_file: Path
) -> None:
    assert manifest.model_version is None
    triton.manifest_json, triton.policy_versions = manifest.to_json(), [1]
    with EmbeddingClient(triton.url, MODEL) as client:
        triton.deploy(versions[1], 2)
        np.testing.assert_array_equal(client.embed_documents(TEXTS), expected(tokenizer_file, 2, TEXTS))
    triton.manifest_json, triton.policy_versions = manifest.to_json(), [1, 2]
    with EmbeddingClient(triton.url, MODEL) as client:
        assert client.embed_documents(["a"]).shape == (1, DIMENSION)


def test_reranker(reranking_triton: FakeTriton, rerank_manifest: RerankManifest) -> None:
    reranking_triton.deploy(rerank_manifest, 1)
    with RerankClient(reranking_triton.url, MODEL) as client:
        before = client.score([("q", "d")])
        prompts = dataclasses.replace(rerank_manifest.prompts, suffix="other")
        reranking_triton.deploy(dataclasses.replace(rerank_manifest, prompts=prompts), 2)
        after = client.score((query, document) for query, document in [("q", "d")])
        assert after.shape == (1,)
        assert after != before
        assert len(client.rerank("q", (text for text in ["a", "b"]))) == 2
