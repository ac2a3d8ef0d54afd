"""Retrieval quality of the demo model with quantized documents."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from numpy.typing import NDArray

from examples.demo.checkpoint import load_embedder
from examples.demo.evaluation import FloatArray, load_evaluation_set, ndcg_of_scores
from examples.demo.tasks import BASE_TASK
from qwen3_triton.client import EmbeddingDtype, fit_ranges, quantize_embeddings, similarity


@pytest.mark.slow
def test_quantized_documents_keep_the_retrieval_quality() -> None:
    evaluation_set = load_evaluation_set(BASE_TASK)
    embedder = load_embedder()
    queries = embedder.embed_queries(evaluation_set.queries, BASE_TASK)
    documents = embedder.embed_documents(evaluation_set.documents)
    ranges = fit_ranges(documents[::5])

    def quantize(vectors: FloatArray, dtype: EmbeddingDtype) -> NDArray[Any]:
        return quantize_embeddings(vectors, dtype, ranges=ranges)

    def ndcg(dtype: EmbeddingDtype, kind: Literal["float32 queries", "same type"] = "float32 queries") -> float:
        left = quantize(queries, dtype) if kind == "same type" else queries
        scores = similarity(left, quantize(documents, dtype), dtype=dtype, ranges=ranges)
        return ndcg_of_scores(scores, evaluation_set.relevance)

    exact = ndcg("float32")
    assert ndcg("float16") == pytest.approx(exact, abs=0.002)
    assert ndcg("int8") == pytest.approx(exact, abs=0.006)
    assert ndcg("int8", "same type") == pytest.approx(exact, abs=0.006)
    assert ndcg("binary", "same type") + 0.03 <= ndcg("binary") <= exact
