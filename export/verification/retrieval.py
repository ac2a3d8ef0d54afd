"""nDCG@10 of a written model on a retrieval set, compared with the reference."""

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
"""Most tokens of a batch of several rows, padding included."""
BATCH_ROWS = 64
_SCORED_QUERIES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalRows:
    """A retrieval set as rows of token ids."""

    source: RetrievalSet
    queries: list[list[int]]
    documents: list[list[int]]


def measure_ndcg(rows: RetrievalRows, embed: Embed, on_rows: Callable[[int, int], None]) -> float:
    """Return the mean nDCG@10, in 0…1, over all queries, with documents ranked by the dot product of embeddings.

    `embed` returns the embeddings float32 [rows, D] of one batch. `on_rows(done, total)` is called after each batch.
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
    """Build the report from the results of `measure_ndcg` for the reference and the written model."""
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
    """Raise RetrievalQualityError if the loss exceeds its limit."""
    if not report.passed:
        raise RetrievalQualityError(
            f"evaluation set {report.evaluation.reference}: nDCG@10 is too low, nothing was written: "
            f"{report.ndcg_at_10:.4f} instead of {report.reference_ndcg_at_10:.4f} by {report.reference} "
            f"(allowed loss: {report.ndcg_loss_tolerance:g}); allow a larger loss, or use precision fp32"
        )


def _embed_all(rows: Rows, embed: Embed, on_rows: Callable[[int, int], None]) -> NDArray[np.float32]:
    """Return the embeddings float32 [rows, D] of all rows in their order."""
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
    """Yield batches as indices of rows of similar length, the longest first.

    A batch has one row, or at most BATCH_ROWS rows and at most BATCH_TOKENS tokens after padding.
    """
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    while order:
        size = min(BATCH_ROWS, max(1, BATCH_TOKENS // max(1, len(rows[order[0]]))))
        yield order[:size]
        order = order[size:]
