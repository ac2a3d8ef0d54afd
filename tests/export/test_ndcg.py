"""nDCG@10 against values computed by hand and against trec_eval."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval

from qwen3_triton.export import ndcg_by_query

SECOND, THIRD, FOURTH = 1 / math.log2(3), 0.5, 1 / math.log2(5)


def ndcg(scores: list[float], gains: dict[int, float]) -> float:
    (value,) = ndcg_by_query(np.array([scores], np.float32), [gains])
    return float(value)


def test_gains_are_linear() -> None:
    """Ranking 1, 0, 3, 2; ideal 3, 2, 1. Gains of 2^score - 1 would give 0.593."""
    found = 1 + 3 * THIRD + 2 * FOURTH
    best = 3 + 2 * SECOND + 1 * THIRD
    assert ndcg([4, 3, 2, 1], {0: 1, 2: 3, 3: 2}) == pytest.approx(found / best)
    assert found / best == pytest.approx(0.7058, abs=1e-4)


@pytest.mark.parametrize(
    ("scores", "gains", "expected"),
    [
        ([1, 1, 1], {0: 1}, 1.0),
        ([1, 1, 1], {1: 1}, SECOND),
        ([0, 1, 1, 1], {3: 2, 1: 1}, (1 + 2 * THIRD) / (2 + SECOND)),
        # of equal scores, only the first ten in document order count
        ([1] * 40, {9: 1}, 1 / math.log2(11)),
        ([1] * 40, {10: 1}, 0.0),
        ([0, *[1] * 9, 2, *[1] * 9], {10: 1}, 1.0),
        ([0, *[1] * 9, 2, *[1] * 9], {9: 1}, 1 / math.log2(11)),
    ],
)
def test_equal_scores_rank_in_the_documents_order(
    scores: list[float], gains: dict[int, float], expected: float
) -> None:
    assert ndcg(scores, gains) == pytest.approx(expected)


def test_judgements_below_one_have_no_gain() -> None:
    assert ndcg([3, 2, 1], {0: -1, 1: 0, 2: 1}) == pytest.approx(THIRD)


def test_ideal_order_is_cut_at_ten() -> None:
    """Twelve documents are relevant, and so are the first ten results."""
    assert ndcg([*range(20, 0, -1)], dict.fromkeys(range(12), 1.0)) == pytest.approx(1)


def test_nan_ranks_last() -> None:
    assert ndcg([math.nan, 1, 2], {0: 1}) == pytest.approx(THIRD)
    assert ndcg([math.nan] * 20, {19: 1}) == 0


def test_each_query_is_scored_separately() -> None:
    scores = np.array([[1, 2], [2, 1]], np.float32)
    np.testing.assert_allclose(ndcg_by_query(scores, [{0: 1.0}, {0: 1.0}]), [SECOND, 1])


def test_query_must_have_a_relevant_document() -> None:
    with pytest.raises(ValueError, match="no relevant document"):
        ndcg([1, 2], {0: 0.0})
    with pytest.raises(ValueError, match="1 rows of scores for 2 queries"):
        ndcg_by_query(np.zeros((1, 2), np.float32), [{0: 1.0}, {0: 1.0}])


@pytest.mark.parametrize("documents", [1, 4, 9, 10, 30])
def test_equals_pytrec_eval(documents: int) -> None:
    """On random judgements with negative gains, unjudged documents and tied scores."""
    rng = np.random.default_rng(documents)
    queries = 60
    gains = rng.integers(-2, 4, (queries, documents))
    # every query needs a relevant document
    gains[np.arange(queries), rng.integers(documents, size=queries)] = rng.integers(1, 4, queries)
    judged = (rng.random(gains.shape) < 0.7) | (gains == gains.max(axis=1, keepdims=True))
    scores = rng.integers(0, 4, gains.shape).astype(np.float32)
    # trec_eval ranks tied documents by descending id, so the first document has the greatest
    names = [f"d{documents - column:02}" for column in range(documents)]
    qrels = {
        f"q{query}": {names[column]: int(gains[query, column]) for column in np.flatnonzero(judged[query])}
        for query in range(queries)
    }
    run = {f"q{query}": dict(zip(names, scores[query].tolist(), strict=True)) for query in range(queries)}
    measured = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
    expected = [measured[f"q{query}"]["ndcg_cut_10"] for query in range(queries)]
    columns: list[dict[int, float]] = [
        {int(column): float(gains[query, column]) for column in np.flatnonzero(judged[query])}
        for query in range(queries)
    ]
    np.testing.assert_allclose(ndcg_by_query(scores, columns), expected, rtol=1e-12)
