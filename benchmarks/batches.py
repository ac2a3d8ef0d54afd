"""Batches of rows sorted by length, whose outputs are returned in the original order; depends on numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .rows import Rows, Vectors

BATCH_ROWS = (1, 2, 4, 8, 16, 32)
"""Batch sizes at which a contender is tried."""
MIN_COMMON_PREFIX = 8
"""Fewest tokens at the start of all rows that are worth computing once."""


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


def common_prefix(rows: Rows) -> int:
    """Return the number of tokens with which all rows begin, if every row is longer; 0 for a single row."""
    if len(rows) < 2:
        return 0
    # in lexicographic order, the first and the last row have the shortest common prefix
    first, *_, last = sorted(map(tuple, rows))
    longest = min(map(len, rows)) - 1
    return next((index for index in range(longest) if first[index] != last[index]), longest)


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


def store_scores(outputs: Vectors, batch: PaddedBatch, logits: Vectors) -> None:
    """Store the sigmoid of each row's logit under the row's original index.

    Args:
        outputs: one score per row of the workload, [n, 1], filled in place.
        batch: the batch that was run.
        logits: its logits, [rows, 1].
    """
    outputs[batch.indices] = 1 / (1 + np.exp(-logits))
