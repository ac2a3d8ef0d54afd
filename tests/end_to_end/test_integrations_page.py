"""The examples in docs/integrations.md, run against a real tritonserver, give the results of the clients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_demo import ServedDemo

from qwen3_triton.client import ClientError, RerankClient

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def examples(served_demo: ServedDemo, project_root: Path) -> list[str]:
    """The Python blocks of the page, with the served models, and tasks of mteb that need no download."""
    page = (project_root / "docs" / "integrations.md").read_text(encoding="utf-8")
    changes = {
        "localhost:8001": served_demo.server.grpc_url,
        '"mymodel"': '"embedder"',
        '"myreranker"': '"reranker-fp32"',
        'mteb.get_tasks(tasks=["NFCorpus"])': "[mteb.mocks.MockRetrievalTask()]",
        'mteb.get_tasks(tasks=["AskUbuntuDupQuestions"])': "[mteb.mocks.MockRerankingTask()]",
        "import mteb\n": "import mteb\nimport mteb.mocks\n",
    }
    for documented, served in changes.items():
        assert documented in page
        page = page.replace(documented, served)
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def best_of(demo: ServedDemo, query: str, texts: list[str]) -> tuple[str, float]:
    with RerankClient(demo.server.grpc_url, "reranker-fp32") as client:
        [(position, score)] = client.rerank(query, texts, top_k=1)
    return texts[position], score


def test_langchain(served_demo: ServedDemo, examples: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langchain_core", reason="needs the extra langchain")
    names = run(examples[0])
    texts = [document.page_content for document in names["found"]]
    assert sorted(texts) == sorted(document.page_content for document in names["documents"])
    text, score = best_of(served_demo, names["query"], texts)
    assert (names["best"].page_content, names["best"].metadata) == (text, {"relevance_score": pytest.approx(score)})
    assert text in capsys.readouterr().out
    with pytest.raises(ClientError, match="closed"):
        names["embeddings"].embed_query("a")


def test_llama_index(served_demo: ServedDemo, examples: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
    names = run(examples[1])
    texts = [node.text for node in names["found"]]
    assert sorted(texts) == sorted(document.text for document in names["documents"])
    text, score = best_of(served_demo, names["query"], texts)
    assert (names["best"].text, names["best"].score) == (text, pytest.approx(score))
    assert text in capsys.readouterr().out
    with pytest.raises(ClientError, match="closed"):
        names["embedding"].get_query_embedding("a")


def test_mteb(examples: list[str]) -> None:
    pytest.importorskip("mteb", reason="mteb is not part of the extra dev")
    for code, name in zip(examples[2:], ["acme/mymodel", "acme/myreranker"], strict=True):
        result = run(code)["result"]
        assert result.model_name == name
        assert np.isfinite(result.task_results[0].get_score())
