"""Batches of rows sorted by length, whose outputs are returned in the original order; depends on numpy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .rows import Rows, Vectors

BATCH_ROWS = (1, 2, 4, 8, 16)
"""Batch sizes at which a contender is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedBatch:
    """A batch of right-padded rows."""

    indices: list[int]
    """Index of each row in the original order."""
    ids: NDArray[np.int64]
    """[rows, width]"""
    mask: NDArray[np.int64]
    """[rows, width]: 1 for tokens, 0 for padding."""

    @property
    def last_columns(self) -> NDArray[np.int64]:
        """Column of each row's last token, [rows]."""
        columns: NDArray[np.int64] = self.mask.sum(axis=1) - 1
        return columns

    @property
    def positions(self) -> NDArray[np.int64]:
        """Position ids 0, 1, … of each row, [rows, width]."""
        columns = np.arange(self.ids.shape[1], dtype=np.int64)
        return np.ascontiguousarray(np.broadcast_to(columns, self.ids.shape))


def sorted_indices(rows: Rows, batch_rows: int) -> Iterator[list[int]]:
    """Yield the row indices of batches of `batch_rows` rows of similar length, shortest first."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for first in range(0, len(rows), batch_rows):
        yield order[first : first + batch_rows]


def sorted_batches(rows: Rows, batch_rows: int) -> Iterator[PaddedBatch]:
    """Yield padded batches of `batch_rows` rows of similar length, shortest first."""
    for indices in sorted_indices(rows, batch_rows):
        width = max(len(rows[index]) for index in indices)
        ids = np.zeros((len(indices), width), np.int64)
        mask = np.zeros_like(ids)
        for position, index in enumerate(indices):
            ids[position, : len(rows[index])] = rows[index]
            mask[position, : len(rows[index])] = 1
        yield PaddedBatch(indices=indices, ids=ids, mask=mask)


def embed_in_batches(rows: Rows, batch_rows: int, hidden_states: Callable[[PaddedBatch], Vectors]) -> Vectors:
    """Embed `rows` with last-token pooling.

    Args:
        rows: token ids.
        batch_rows: rows per batch.
        hidden_states: computes a batch's hidden states, [rows, width, hidden].

    Returns:
        Unit vectors in the original order, [n, hidden].
    """
    outputs: list[Vectors] = [np.empty(0, np.float32)] * len(rows)
    for batch in sorted_batches(rows, batch_rows):
        store_last_tokens(outputs, batch, hidden_states(batch))
    return np.stack(outputs)


def score_in_batches(rows: Rows, batch_rows: int, logits: Callable[[PaddedBatch], Vectors]) -> Vectors:
    """Score `rows` with the sigmoid of a single logit.

    Args:
        rows: token ids.
        batch_rows: rows per batch.
        logits: computes a batch's logits, [rows, 1].

    Returns:
        Scores in the original order, [n, 1].
    """
    outputs = np.empty((len(rows), 1), np.float32)
    for batch in sorted_batches(rows, batch_rows):
        outputs[batch.indices] = 1 / (1 + np.exp(-logits(batch)))
    return outputs


def store_last_tokens(outputs: list[Vectors], batch: PaddedBatch, states: Vectors) -> None:
    """Store the normalized hidden state of each row's last token under the row's original index.

    Args:
        outputs: one vector per row of the workload, filled in place.
        batch: the batch that was run.
        states: its hidden states, [rows, width, hidden].
    """
    last = states[np.arange(len(batch.indices)), batch.last_columns]
    for index, vector in zip(batch.indices, last, strict=True):
        outputs[index] = vector / np.linalg.norm(vector)
