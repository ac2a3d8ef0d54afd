"""How much of a retrieval set's nDCG@10 a written model keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...client.manifest import RetrievalReport
from ..errors import RetrievalQualityError
from ..sources.retrieval_set import RetrievalSet
from .ndcg import ndcg_by_query
from .reference import REFERENCE_NAME

Rows = Sequence[Sequence[int]]
Embed = Callable[[Rows], NDArray[np.float32]]

BATCH_TOKENS = 4096
"""Most tokens of a batch, padding included, where it has more than one row."""
BATCH_ROWS = 64
_SCORED_QUERIES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalRows:
    """A retrieval set as rows of ids."""

    source: RetrievalSet
    queries: list[list[int]]
    documents: list[list[int]]


def measure_ndcg(rows: RetrievalRows, embed: Embed, on_rows: Callable[[int, int], None]) -> float:
    """Mean nDCG@10 in 0…1 over the set's queries, documents ranked by the dot product of unit vectors.

    `embed` takes one batch of rows and returns float32 [rows, D]; `on_rows` hears how many of how many are done.
    """
    vectors = _embed_all([*rows.queries, *rows.documents], embed, on_rows)
    queries, documents = np.split(vectors, [len(rows.queries)])
    found = rows.source
    total = 0.0
    for first in range(0, len(queries), _SCORED_QUERIES):
        part = slice(first, first + _SCORED_QUERIES)
        scores = queries[part] @ documents.T
        for row, own in zip(scores, found.same_id[part], strict=True):
            if own is not None:
                row[own] = -np.inf
        total += float(ndcg_by_query(scores, found.gains[part]).sum())
    return total / len(queries)


def report_retrieval(
    rows: RetrievalRows, *, reference: float, written: float, runtime: str, max_loss: float | None
) -> RetrievalReport:
    """The report of two figures of `measure_ndcg`."""
    return RetrievalReport(
        evaluation=rows.source.identity,
        reference=REFERENCE_NAME,
        runtime=runtime,
        queries=len(rows.queries),
        documents=len(rows.documents),
        reference_ndcg_at_10=reference,
        ndcg_at_10=written,
        ndcg_loss_tolerance=max_loss,
    )


def require_ndcg(report: RetrievalReport) -> None:
    """Raises RetrievalQualityError where the gate does not hold."""
    if not report.passed:
        raise RetrievalQualityError(
            f"retrieval over {report.evaluation.reference} loses too much, nothing was written: nDCG@10 "
            f"{report.ndcg_at_10:.4f} after {report.reference_ndcg_at_10:.4f} of {report.reference} "
            f"(allowed loss: {report.ndcg_loss_tolerance:g}); allow a larger loss, or use precision fp32"
        )


def _embed_all(rows: Rows, embed: Embed, on_rows: Callable[[int, int], None]) -> NDArray[np.float32]:
    """Vectors of all rows, in their order: float32 [rows, D]."""
    vectors = np.empty((0, 0), np.float32)
    done = 0
    for batch in batches(rows):
        outputs = embed([rows[index] for index in batch])
        if not done:
            vectors = np.empty((len(rows), outputs.shape[1]), np.float32)
        vectors[batch] = outputs
        done += len(batch)
        on_rows(done, len(rows))
    return vectors


def batches(rows: Rows) -> Iterator[list[int]]:
    """Places of rows that make a batch, rows of like length together and the longest first.

    A batch has one row, or no more than BATCH_ROWS and, padded to its longest, than BATCH_TOKENS.
    """
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    while order:
        size = min(BATCH_ROWS, max(1, BATCH_TOKENS // max(1, len(rows[order[0]]))))
        yield order[:size]
        order = order[size:]
