from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_triton import MODEL, FakeTriton
from sample_contract import DIMENSION, make_contract, make_rerank_contract, write_tokenizer

from qwen3_triton.client import EmbeddingClient, EmbeddingContract, RerankClient, RerankContract


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(file)
    return file


@pytest.fixture(scope="session")
def contract(tokenizer_file: Path) -> EmbeddingContract:
    return make_contract(tokenizer_file)


@pytest.fixture
def triton(contract: EmbeddingContract) -> Iterator[FakeTriton]:
    with FakeTriton(contract.to_json(), DIMENSION) as server:
        yield server


@pytest.fixture
def client(triton: FakeTriton) -> Iterator[EmbeddingClient]:
    with EmbeddingClient(triton.url, model=MODEL, timeout_s=10) as connected:
        yield connected


@pytest.fixture(scope="session")
def rerank_contract(tokenizer_file: Path) -> RerankContract:
    return make_rerank_contract(tokenizer_file)


@pytest.fixture
def reranking_triton(rerank_contract: RerankContract) -> Iterator[FakeTriton]:
    with FakeTriton(rerank_contract.to_json(), None) as server:
        yield server


@pytest.fixture
def rerank_client(reranking_triton: FakeTriton) -> Iterator[RerankClient]:
    with RerankClient(reranking_triton.url, model=MODEL, timeout_s=10) as connected:
        yield connected
