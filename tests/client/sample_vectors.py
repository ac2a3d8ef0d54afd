"""Seeded unit vectors, and a small retrieval set of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen3_triton.client.vectors import normalize_rows


def unit_vectors(count: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Return float32 `[count, dim]` unit vectors; later components are smaller, and have a mean other than 0."""
    rng = np.random.default_rng(seed)
    scales = np.geomspace(1, 0.1, dim)
    return normalize_rows(((rng.standard_normal((count, dim)) + 0.3) * scales).astype(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSet:
    """Queries, each near one document."""

    queries: NDArray[np.float32]
    documents: NDArray[np.float32]

    def hit_rate(self, scores: NDArray[np.float32]) -> float:
        """Return the share of queries whose document has the highest of their scores."""
        return float((scores.argmax(axis=1) == np.arange(len(scores))).mean())


def make_vector_set(queries: int = 200, documents: int = 2_000, dim: int = 256) -> VectorSet:
    """Return a set whose first documents are the answers to its queries, in their order."""
    rows = unit_vectors(documents, dim)
    noise = 2.0 * unit_vectors(queries, dim, seed=1)
    return VectorSet(queries=normalize_rows(rows[:queries] + noise), documents=rows)


def top_overlap(scores: NDArray[np.float32], exact: NDArray[np.float32], count: int = 10) -> float:
    """Return the mean share of the `count` best documents of `exact` that are also among those of `scores`."""
    best, found = (np.argsort(-values, axis=1, kind="stable")[:, :count] for values in (exact, scores))
    return float(np.mean([len(set(left) & set(right)) / count for left, right in zip(best, found, strict=True)]))
