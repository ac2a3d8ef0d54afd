"""Training data of the reranker: queries with their relevant document and hard negatives."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from examples.demo.evaluation import FloatArray
from examples.demo.model import Embedder
from examples.demo.pairs import Pair
from examples.demo.reranking.tokens import PairRows
from examples.demo.tasks import BASE_TASK

NEGATIVES = 7
TRAINING_BODY_TOKENS = 128
_NEAREST = 30
_POOL_BATCHES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingList:
    """A query, its relevant document, and the other documents that are most similar to the query, best first."""

    query: str
    answer: str
    others: tuple[str, ...]


def mine_lists(pairs: Sequence[Pair], embedder: Embedder) -> list[TrainingList]:
    """Return one list per pair, with the `_NEAREST` other documents of `pairs` by the embedder's cosine."""
    queries = embedder.embed_queries([pair.query for pair in pairs], BASE_TASK)
    documents = embedder.embed_documents([pair.document for pair in pairs])
    return [
        TrainingList(
            query=pair.query,
            answer=pair.document,
            others=tuple(pairs[other].document for other in nearest if other != index)[:_NEAREST],
        )
        for index, (pair, nearest) in enumerate(zip(pairs, _nearest(queries, documents), strict=True))
    ]


def _nearest(queries: FloatArray, documents: FloatArray) -> Iterator[list[int]]:
    for query in queries:
        scores = documents @ query
        best = np.argpartition(-scores, _NEAREST + 1)[: _NEAREST + 1]
        yield [int(index) for index in best[np.argsort(-scores[best])]]


def list_batches(
    lists: Sequence[TrainingList], pairs: PairRows, size: int, rng: random.Random
) -> Iterator[list[list[int]]]:
    """Yield batches of `size` lists endlessly; a list has `1 + NEGATIVES` rows, with the relevant document first.

    Negatives are sampled again in each epoch. Within a pool, lists of similar length share a batch.
    """
    while True:
        order = list(range(len(lists)))
        rng.shuffle(order)
        per_pool = _POOL_BATCHES * size
        for start in range(0, len(order) - per_pool + 1, per_pool):
            sampled = [_sample_pairs(lists[index], rng) for index in order[start : start + per_pool]]
            rows = pairs.rows([pair for each in sampled for pair in each], TRAINING_BODY_TOKENS)
            width = 1 + NEGATIVES
            grouped = [rows[at : at + width] for at in range(0, len(rows), width)]
            grouped.sort(key=lambda group: max(map(len, group)))
            ready = [grouped[at : at + size] for at in range(0, per_pool, size)]
            rng.shuffle(ready)
            for batch in ready:
                yield [row for group in batch for row in group]


def _sample_pairs(training_list: TrainingList, rng: random.Random) -> list[tuple[str, str]]:
    negatives = rng.sample(training_list.others, NEGATIVES)
    return [(training_list.query, document) for document in (training_list.answer, *negatives)]
