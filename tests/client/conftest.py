from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocking_clients import BlockingEmbeddingClient, BlockingRerankClient
from fake_triton import MODEL, FakeTriton
from sample_manifest import DIMENSION, make_manifest, make_rerank_manifest, write_tokenizer

from qwen3_triton.client import EmbeddingClient, EmbeddingManifest, RerankClient, RerankManifest


@pytest.fixture(params=["sync", "async"])
def both_clients(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the synchronous clients, and with the asynchronous ones under the same names."""
    if request.param == "async":
        for module in (request.module, sys.modules[__name__]):
            monkeypatch.setattr(module, "EmbeddingClient", BlockingEmbeddingClient, raising=False)
            monkeypatch.setattr(module, "RerankClient", BlockingRerankClient, raising=False)


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(file)
    return file


@pytest.fixture(scope="session")
def manifest(tokenizer_file: Path) -> EmbeddingManifest:
    return make_manifest(tokenizer_file)


@pytest.fixture
def triton(manifest: EmbeddingManifest) -> Iterator[FakeTriton]:
    with FakeTriton(manifest.to_json(), DIMENSION) as server:
        yield server


@pytest.fixture
def client(triton: FakeTriton) -> Iterator[EmbeddingClient]:
    with EmbeddingClient(triton.url, model=MODEL, timeout_s=10, retry_timeout_s=0) as connected:
        yield connected


@pytest.fixture(scope="session")
def rerank_manifest(tokenizer_file: Path) -> RerankManifest:
    return make_rerank_manifest(tokenizer_file)


@pytest.fixture
def reranking_triton(rerank_manifest: RerankManifest) -> Iterator[FakeTriton]:
    with FakeTriton(rerank_manifest.to_json(), None) as server:
        yield server


@pytest.fixture
def rerank_client(reranking_triton: FakeTriton) -> Iterator[RerankClient]:
    with RerankClient(reranking_triton.url, model=MODEL, timeout_s=10, retry_timeout_s=0) as connected:
        yield connected
