"""Retrieval quality on held-out modules, for anything that turns texts into vectors.

Shapes: Q queries, N documents, D components of a full vector, k components of a cut one.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.demo.pairs import held_out_functions
from examples.demo.tasks import DemoTask
from qwen3_triton.export import ndcg_by_query

FloatArray = NDArray[np.float32]
Embed = Callable[[list[str]], FloatArray]

QUERIES = 400
_SEED = 20240607


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """Queries (without instruction), candidate documents, and which documents answer each query."""

    task: DemoTask
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    relevance: tuple[frozenset[int], ...]
    modules: frozenset[str]

    @property
    def instruction(self) -> str:
        """What a query embedder must be told."""
        return self.task.value


@functools.cache
def load_evaluation_set(task: DemoTask) -> EvaluationSet:
    """The task's evaluation set, read from the held-out standard library modules of this Python.

    Documents are all described held-out functions, queries a fixed sample of `QUERIES` of them.
    Only the two tasks between descriptions and code have one.
    """
    if task not in (DemoTask.DESCRIPTION_TO_CODE, DemoTask.CODE_TO_DESCRIPTION):
        raise ValueError(f"no evaluation set for {task.name}: take DESCRIPTION_TO_CODE or CODE_TO_DESCRIPTION")
    functions = [function for function in held_out_functions() if function.description]
    asked = sorted(random.Random(_SEED).sample(range(len(functions)), QUERIES))
    descriptions = [function.description for function in functions]
    codes = [function.code for function in functions]
    queries, documents = (descriptions, codes) if task is DemoTask.DESCRIPTION_TO_CODE else (codes, descriptions)
    return EvaluationSet(
        task=task,
        queries=tuple(queries[index] for index in asked),
        documents=tuple(documents),
        relevance=tuple(frozenset({index}) for index in asked),
        modules=frozenset(function.module for function in functions),
    )


def evaluate(
    evaluation_set: EvaluationSet, embed_queries: Embed, embed_documents: Embed, dim: int | None = None
) -> float:
    """nDCG@10 in 0…1 of the vectors two callables give; `embed_queries` must add the set's instruction itself.

    Each callable takes a list of texts and returns float32 [n, D]; `dim` cuts the vectors to k = dim.
    """
    queries = embed_queries(list(evaluation_set.queries))
    documents = embed_documents(list(evaluation_set.documents))
    return ndcg_at_10(cut(queries, dim), cut(documents, dim), evaluation_set.relevance)


def cut(vectors: FloatArray, dim: int | None) -> FloatArray:
    """The first `dim` components of each row, of length 1 again; all of them for None."""
    head = vectors[:, :dim]
    return np.asarray(head / np.linalg.norm(head, axis=1, keepdims=True), np.float32)


def ndcg_at_10(queries: FloatArray, documents: FloatArray, relevance: Sequence[frozenset[int]]) -> float:
    """Mean nDCG@10 of ranking documents [N, k] by dot product with queries [Q, k], with gains of 0 and 1."""
    return ndcg_of_scores(queries @ documents.T, relevance)


def ndcg_of_scores(scores: FloatArray, relevance: Sequence[frozenset[int]]) -> float:
    """Mean nDCG@10 of scores [Q, N], higher is better; equal scores rank in the documents' order.

    As an export with `--evaluation` measures it.
    """
    return float(ndcg_by_query(scores, [dict.fromkeys(relevant, 1.0) for relevant in relevance]).mean())
