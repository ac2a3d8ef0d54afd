"""Retrieval quality on held-out modules, for any function from texts to vectors.

Shapes: Q queries, N documents, D components of a full vector, k components of a truncated one.
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
    """Queries (without instruction), documents, and the indices of the relevant documents of each query."""

    task: DemoTask
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    relevance: tuple[frozenset[int], ...]
    modules: frozenset[str]

    @property
    def instruction(self) -> str:
        """Instruction for the queries."""
        return self.task.value


@functools.cache
def load_evaluation_set(task: DemoTask) -> EvaluationSet:
    """Load the evaluation set of a task from the held-out standard library modules of this Python.

    The documents come from all held-out functions with a description, the queries from a fixed sample of `QUERIES` of
    them.

    Raises:
        ValueError: There is no set for `task`, only for the two tasks between descriptions and code.
    """
    if task not in (DemoTask.DESCRIPTION_TO_CODE, DemoTask.CODE_TO_DESCRIPTION):
        raise ValueError(f"no evaluation set for {task.name}: use DESCRIPTION_TO_CODE or CODE_TO_DESCRIPTION")
    functions = [function for function in held_out_functions() if function.description]
    sampled = sorted(random.Random(_SEED).sample(range(len(functions)), QUERIES))
    descriptions = [function.description for function in functions]
    codes = [function.code for function in functions]
    queries, documents = (descriptions, codes) if task is DemoTask.DESCRIPTION_TO_CODE else (codes, descriptions)
    return EvaluationSet(
        task=task,
        queries=tuple(queries[index] for index in sampled),
        documents=tuple(documents),
        relevance=tuple(frozenset({index}) for index in sampled),
        modules=frozenset(function.module for function in functions),
    )


def evaluate(
    evaluation_set: EvaluationSet, embed_queries: Embed, embed_documents: Embed, dim: int | None = None
) -> float:
    """Return nDCG@10 in 0…1 of two embedding functions.

    Args:
        evaluation_set: Queries, documents and relevant documents.
        embed_queries: Maps queries to float32 [n, D]; it must add the instruction of the set.
        embed_documents: Maps documents to float32 [n, D].
        dim: Number of leading components to compare; None for all.
    """
    queries = embed_queries(list(evaluation_set.queries))
    documents = embed_documents(list(evaluation_set.documents))
    return ndcg_at_10(cut(queries, dim), cut(documents, dim), evaluation_set.relevance)


def cut(vectors: FloatArray, dim: int | None) -> FloatArray:
    """Keep the first `dim` components of each row (all for None) and normalize to length 1."""
    head = vectors[:, :dim]
    return np.asarray(head / np.linalg.norm(head, axis=1, keepdims=True), np.float32)


def ndcg_at_10(queries: FloatArray, documents: FloatArray, relevance: Sequence[frozenset[int]]) -> float:
    """Return the mean nDCG@10 of documents [N, k] ranked by dot product with queries [Q, k]; gains are 0 or 1."""
    return ndcg_of_scores(queries @ documents.T, relevance)


def ndcg_of_scores(scores: FloatArray, relevance: Sequence[frozenset[int]]) -> float:
    """Return the mean nDCG@10 of scores [Q, N], higher is better; equal scores are ranked by document index.

    Exports with `--evaluation` use the same function.
    """
    return float(ndcg_by_query(scores, [dict.fromkeys(relevant, 1.0) for relevant in relevance]).mean())
