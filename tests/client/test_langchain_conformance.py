"""LangChain's standard tests of embeddings."""

from __future__ import annotations

from typing import Any

import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient

pytest.importorskip("langchain_tests", reason="langchain-tests is not part of the extra dev")

from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from qwen3_triton.client.integrations.langchain import Qwen3TritonEmbeddings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class TestUnit(EmbeddingsUnitTests):
    @pytest.fixture(autouse=True)
    def serve(self, triton: FakeTriton) -> None:
        self.url = triton.url

    @property
    def embeddings_class(self) -> type[Qwen3TritonEmbeddings]:
        return Qwen3TritonEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"url": self.url, "model": MODEL}


@pytest.mark.anyio
class TestIntegration(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def serve(self, client: EmbeddingClient) -> None:
        self.client = client

    @property
    def embeddings_class(self) -> type[Qwen3TritonEmbeddings]:
        return Qwen3TritonEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"client": self.client}
