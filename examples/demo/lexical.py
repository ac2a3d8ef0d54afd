"""BM25 over words and parts of identifiers, as a baseline without a trained model."""

from __future__ import annotations

import re

import bm25s
import numpy as np

from examples.demo.evaluation import EvaluationSet, FloatArray, ndcg_of_scores
from examples.demo.pairs import name_words

_K1 = 1.2
_B = 0.75


def evaluate_bm25(evaluation_set: EvaluationSet) -> float:
    """Return nDCG@10 in 0…1 of BM25 with identifiers split into words."""
    return ndcg_of_scores(bm25_scores(evaluation_set.queries, evaluation_set.documents), evaluation_set.relevance)


def bm25_scores(queries: tuple[str, ...], documents: tuple[str, ...]) -> FloatArray:
    """Return BM25 scores, float32 `[queries, documents]`, with k1 = 1.2 and b = 0.75.

    The term frequency is that of Robertson and Zaragoza (2009), the inverse document frequency that of Lucene, which is
    never negative.
    """
    index = bm25s.BM25(method="atire", idf_method="lucene", k1=_K1, b=_B)
    index.index([_terms(document) for document in documents], show_progress=False)
    scores = np.zeros((len(queries), len(documents)), np.float32)
    for row, query in enumerate(queries):
        # bm25s rejects a query without terms
        if terms := _terms(query):
            scores[row] = index.get_scores(terms)
    return scores


def _terms(text: str) -> list[str]:
    return [word for identifier in re.findall(r"\w+", text) for word in name_words(identifier)]
