"""Evaluation of retrieval followed by reranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.demo.evaluation import FloatArray, ndcg_of_scores

CANDIDATES = 20
Score = Callable[[list[tuple[str, str]]], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankQuality:
    """nDCG@10 in 0…1 for the same queries and candidates."""

    retrieval: float
    """In the order of the retrieval."""
    reranked: float
    """In the order of the reranker."""
    best_possible: float
    """In the best possible order: the fraction of queries whose document is among the candidates."""


def evaluate_reranking(
    queries: Sequence[str],
    documents: Sequence[str],
    relevance: Sequence[frozenset[int]],
    similarities: FloatArray,
    score: Score,
) -> RerankQuality:
    """Evaluate the ranking by `similarities`, and the reranking of its top `CANDIDATES` by `score`.

    Args:
        queries: Q queries.
        documents: N documents.
        relevance: Index of the one relevant document of each query.
        similarities: Scores of the retrieval [Q, N].
        score: Maps (query, document) pairs to float32 [pairs], higher is better. Equal scores keep the order of the
            retrieval.
    """
    best = best_candidates(similarities)
    pairs = [(query, documents[index]) for query, row in zip(queries, best, strict=True) for index in row]
    scores = score(pairs).reshape(best.shape)
    # documents are identified by their rank among the candidates; a rank of CANDIDATES means missing
    ranks = [
        frozenset(np.flatnonzero([index in relevant for index in row]).tolist())
        for row, relevant in zip(best, relevance, strict=True)
    ]
    relevant_ranks = [rank or frozenset({CANDIDATES}) for rank in ranks]
    by_retrieval = -np.arange(best.shape[1], dtype=np.float32)[None].repeat(len(best), 0)
    return RerankQuality(
        retrieval=ndcg_of_scores(by_retrieval, relevant_ranks),
        reranked=ndcg_of_scores(scores, relevant_ranks),
        best_possible=sum(map(bool, ranks)) / len(ranks),
    )


def best_candidates(similarities: FloatArray) -> NDArray[np.intp]:
    """Return the indices [Q, `CANDIDATES`] of the most similar documents, best first."""
    return np.argsort(-similarities, axis=1, kind="stable")[:, :CANDIDATES]
