"""nDCG@10, the main metric of BEIR and MTEB for retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

RANKS = 10
_DISCOUNTS = 1 / np.log2(np.arange(2, RANKS + 2))


def ndcg_by_query(scores: NDArray[np.float32], gains: Sequence[Mapping[int, float]]) -> NDArray[np.float64]:
    """Return the nDCG@10 of each query.

    The sum of gain / log2(rank + 1) over the first ten documents, divided by that of the ideal order (Järvelin and
    Kekäläinen 2002). As in trec_eval's `ndcg_cut`, which BEIR uses through pytrec_eval, gains are linear and negative
    judgements count as 0. Documents with equal scores rank in their order; NaN ranks last.

    Args:
        scores: [Q, N] for Q queries and N documents; higher is better.
        gains: For each query, column of a judged document → relevance. At least one must be above 0.

    Returns:
        float64 [Q], in 0…1.

    Raises:
        ValueError: The lengths differ or are 0, or a query has no relevant document.
    """
    if len(scores) != len(gains) or not len(scores):
        raise ValueError(f"{len(scores)} rows of scores for {len(gains)} queries")
    return np.array([_ndcg(row, judged) for row, judged in zip(scores, gains, strict=True)])


def _ndcg(scores: NDArray[np.float32], judged: Mapping[int, float]) -> float:
    best = sorted((gain for gain in judged.values() if gain > 0), reverse=True)[:RANKS]
    if not best:
        raise ValueError("a query has no relevant document, so its nDCG is undefined")
    found = [max(judged.get(int(index), 0.0), 0.0) for index in _first(scores)]
    return float(_DISCOUNTS[: len(found)] @ found / (_DISCOUNTS[: len(best)] @ best))


def _first(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the indices of the ten highest scores, best first, without sorting the others."""
    ranked = np.where(np.isnan(scores), -np.inf, scores)
    if len(ranked) > RANKS:
        threshold = np.partition(ranked, -RANKS)[-RANKS]
        candidates = np.flatnonzero(ranked >= threshold)
    else:
        candidates = np.arange(len(ranked))
    return candidates[np.argsort(-ranked[candidates], kind="stable")[:RANKS]]
