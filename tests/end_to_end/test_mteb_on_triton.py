"""mteb's evaluation of the demo models on a real tritonserver gives the figures of this project's evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from served_demo import ServedDemo

from examples.demo.evaluation import EvaluationSet, load_evaluation_set, ndcg_of_scores
from examples.demo.reranking.evaluation import best_candidates, evaluate_reranking
from examples.demo.tasks import BASE_TASK
from qwen3_triton.client import EmbeddingClient, RerankClient

pytest.importorskip("mteb", reason="mteb is not part of the extra dev")

import mteb
from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from qwen3_triton.client.integrations.mteb import Qwen3TritonCrossEncoder, Qwen3TritonEncoder

pytestmark = pytest.mark.slow

DOCUMENTS = 500
RERANKED_QUERIES = 20
NAME = "acme/demo"


class DemoTask(AbsTaskRetrieval):
    """The demo's evaluation set, or its first queries with candidates to rerank."""

    metadata = TaskMetadata(
        name="DemoTask",
        description="Python functions for descriptions",
        dataset={"path": "none", "revision": "none"},
        type="Retrieval",
        category="t2t",
        prompt=BASE_TASK.value,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )

    def __init__(self, judged: EvaluationSet, candidates: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__()
        self.judged = judged
        self.candidates = candidates

    def load_data(self, **_: Any) -> None:
        used = len(self.judged.queries if self.candidates is None else self.candidates)
        split = {
            "queries": Dataset.from_list(
                [{"id": f"q{index}", "text": text} for index, text in enumerate(self.judged.queries[:used])]
            ),
            "corpus": Dataset.from_list(
                [{"id": f"d{index}", "title": "", "text": text} for index, text in enumerate(self.judged.documents)]
            ),
            "relevant_docs": {
                f"q{index}": {f"d{document}": 1 for document in relevant}
                for index, relevant in enumerate(self.judged.relevance[:used])
            },
            "top_ranked": self.candidates
            and {f"q{index}": [f"d{document}" for document in row] for index, row in enumerate(self.candidates)},
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


@pytest.fixture(scope="module")
def judged() -> EvaluationSet:
    """Return the first documents of the set, without the white space that mteb removes, and their queries."""
    whole = load_evaluation_set(BASE_TASK)
    kept = [index for index, relevant in enumerate(whole.relevance) if max(relevant) < DOCUMENTS]
    return dataclasses.replace(
        whole,
        queries=tuple(whole.queries[index] for index in kept),
        documents=tuple(text.strip() for text in whole.documents[:DOCUMENTS]),
        relevance=tuple(whole.relevance[index] for index in kept),
    )


@pytest.fixture(scope="module")
def similarities(served_demo: ServedDemo, judged: EvaluationSet) -> NDArray[np.float32]:
    with EmbeddingClient(served_demo.server.grpc_url, "embedder") as client:
        queries = client.embed_queries(judged.queries, judged.instruction)
        return np.asarray(queries @ client.embed_documents(judged.documents).T)


def evaluate(model: Any, task: DemoTask) -> float:
    [result] = mteb.evaluate(model, task, cache=None, show_progress_bar=False).task_results
    score: float = result.get_score()
    return score


def test_ndcg_of_retrieval(served_demo: ServedDemo, judged: EvaluationSet, similarities: NDArray[np.float32]) -> None:
    with Qwen3TritonEncoder(served_demo.server.grpc_url, "embedder", name=NAME) as encoder:
        found = evaluate(encoder, DemoTask(judged))
    expected = ndcg_of_scores(similarities, judged.relevance)
    assert found == pytest.approx(expected, abs=1e-5)
    assert found > 0.4


def test_ndcg_of_reranking(served_demo: ServedDemo, judged: EvaluationSet, similarities: NDArray[np.float32]) -> None:
    url, few = served_demo.server.grpc_url, slice(RERANKED_QUERIES)
    candidates = best_candidates(similarities[few]).tolist()
    with Qwen3TritonCrossEncoder(url, "reranker-fp32", name=NAME) as cross_encoder:
        found = evaluate(cross_encoder, DemoTask(judged, candidates))
    with RerankClient(url, "reranker-fp32") as client:
        quality = evaluate_reranking(
            judged.queries[few],
            judged.documents,
            judged.relevance[few],
            similarities[few],
            lambda pairs: client.score(pairs, judged.instruction),
        )
    assert found == pytest.approx(quality.reranked, abs=1e-5)
