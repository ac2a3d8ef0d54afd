"""BM25 over words and word parts: what a search without any model reaches."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np

from examples.demo.evaluation import EvaluationSet, FloatArray, ndcg_of_scores
from examples.demo.pairs import name_words

_K1 = 1.2
_B = 0.75


def evaluate_bm25(evaluation_set: EvaluationSet) -> float:
    """nDCG@10 in 0…1 of BM25 with identifiers split into their words."""
    return ndcg_of_scores(bm25_scores(evaluation_set.queries, evaluation_set.documents), evaluation_set.relevance)


def bm25_scores(queries: tuple[str, ...], documents: tuple[str, ...]) -> FloatArray:
    """Scores [Q, N] (Robertson and Zaragoza 2009, k1 = 1.2, b = 0.75, idf never below zero)."""
    counts = [Counter(_terms(document)) for document in documents]
    lengths = np.array([count.total() for count in counts], np.float32)
    norms = _K1 * (1 - _B + _B * lengths / lengths.mean())
    postings: dict[str, list[tuple[int, int]]] = {}
    for index, count in enumerate(counts):
        for term, frequency in count.items():
            postings.setdefault(term, []).append((index, frequency))
    scores = np.zeros((len(queries), len(documents)), np.float32)
    for row, query in enumerate(queries):
        for term in _terms(query):
            found = postings.get(term, [])
            idf = math.log(1 + (len(documents) - len(found) + 0.5) / (len(found) + 0.5))
            for index, frequency in found:
                scores[row, index] += idf * frequency * (_K1 + 1) / (frequency + norms[index])
    return scores


def _terms(text: str) -> list[str]:
    return [word for identifier in re.findall(r"\w+", text) for word in name_words(identifier)]
