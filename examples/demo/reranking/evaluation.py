"""Retrieve, then rerank: what a reranker makes of the best documents of a retrieval."""

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
    """nDCG@10 in 0…1 over the same queries and candidates."""

    retrieval: float
    reranked: float
    best_possible: float
    """The share of queries whose document is among the candidates at all."""


def evaluate_reranking(
    queries: Sequence[str],
    documents: Sequence[str],
    relevance: Sequence[frozenset[int]],
    similarities: FloatArray,
    score: Score,
) -> RerankQuality:
    """The order by `similarities` [Q, N], and that of its best `CANDIDATES` by `score` alone.

    `score` takes pairs of query and document and returns float32 [pairs], higher is better. Equal scores keep the
    retrieval's order. One document answers each query.
    """
    best = best_candidates(similarities)
    pairs = [(query, documents[index]) for query, row in zip(queries, best, strict=True) for index in row]
    scores = score(pairs).reshape(best.shape)
    # among the candidates documents are known by their rank; one that is not there never counts
    ranks = [
        frozenset(np.flatnonzero([i in answers for i in row]).tolist())
        for row, answers in zip(best, relevance, strict=True)
    ]
    wanted = [rank or frozenset({CANDIDATES}) for rank in ranks]
    by_retrieval = -np.arange(best.shape[1], dtype=np.float32)[None].repeat(len(best), 0)
    return RerankQuality(
        retrieval=ndcg_of_scores(by_retrieval, wanted),
        reranked=ndcg_of_scores(scores, wanted),
        best_possible=sum(map(bool, ranks)) / len(ranks),
    )


def best_candidates(similarities: FloatArray) -> NDArray[np.intp]:
    """Indices [Q, `CANDIDATES`] of the nearest documents, best first."""
    return np.argsort(-similarities, axis=1, kind="stable")[:, :CANDIDATES]
