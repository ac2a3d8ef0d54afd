"""nDCG@10, the figure by which BEIR and MTEB judge retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

RANKS = 10
_DISCOUNTS = 1 / np.log2(np.arange(2, RANKS + 2))


def ndcg_by_query(scores: NDArray[np.float32], gains: Sequence[Mapping[int, float]]) -> NDArray[np.float64]:
    """nDCG@10 in 0…1 of each query, float64 [Q], from scores [Q, N], higher is better.

    `gains` say of each query which documents were judged, by their column, and how relevant they are; at least one
    above 0. The sum of gain / log2(rank + 1) over the first ten, divided by that of the best order (Järvelin and
    Kekäläinen 2002). A judgement is the gain itself, not 2 to it, and below 0 counts as 0, as in trec_eval's
    `ndcg_cut`, which BEIR calls through pytrec_eval. Equal scores rank in the documents' order; NaN comes last.
    """
    if len(scores) != len(gains) or not len(scores):
        raise ValueError(f"{len(scores)} rows of scores for {len(gains)} queries")
    return np.array([_ndcg(row, judged) for row, judged in zip(scores, gains, strict=True)])


def _ndcg(scores: NDArray[np.float32], judged: Mapping[int, float]) -> float:
    best = sorted((gain for gain in judged.values() if gain > 0), reverse=True)[:RANKS]
    if not best:
        raise ValueError("a query has no relevant document, and so no nDCG")
    found = [max(judged.get(int(index), 0.0), 0.0) for index in _first(scores)]
    return float(_DISCOUNTS[: len(found)] @ found / (_DISCOUNTS[: len(best)] @ best))


def _first(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """The places of the ten highest scores, best first, without sorting the rest."""
    ranked = np.where(np.isnan(scores), -np.inf, scores)
    if len(ranked) > RANKS:
        least = np.partition(ranked, -RANKS)[-RANKS]
        kept = np.flatnonzero(ranked >= least)
    else:
        kept = np.arange(len(ranked))
    return kept[np.argsort(-ranked[kept], kind="stable")[:RANKS]]
