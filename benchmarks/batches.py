"""Batches of rows sorted by length, and their answers back in the callers' order; needs numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .rows import Rows, Vectors

BATCH_ROWS = (1, 2, 4, 8, 16)
"""Batch sizes that a contender is tried at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedBatch:
    """Rows of a batch, shorter ones padded at the right."""

    places: list[int]
    """Where each row stands in the callers' order."""
    ids: NDArray[np.int64]
    """[rows, width]"""
    mask: NDArray[np.int64]
    """[rows, width]: 1 where a token is real."""

    @property
    def last(self) -> NDArray[np.int64]:
        """[rows]: column of each row's last token."""
        columns: NDArray[np.int64] = self.mask.sum(axis=1) - 1
        return columns

    @property
    def positions(self) -> NDArray[np.int64]:
        """[rows, width]: 0, 1, … in each row."""
        columns = np.arange(self.ids.shape[1], dtype=np.int64)
        return np.ascontiguousarray(np.broadcast_to(columns, self.ids.shape))


def sorted_places(rows: Rows, batch_rows: int) -> Iterator[list[int]]:
    """Places of `batch_rows` rows of like length, shortest first."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    for first in range(0, len(rows), batch_rows):
        yield order[first : first + batch_rows]


def sorted_batches(rows: Rows, batch_rows: int) -> Iterator[PaddedBatch]:
    """Padded batches of `batch_rows` rows of like length, shortest first."""
    for places in sorted_places(rows, batch_rows):
        width = max(len(rows[place]) for place in places)
        ids = np.zeros((len(places), width), np.int64)
        mask = np.zeros_like(ids)
        for index, place in enumerate(places):
            ids[index, : len(rows[place])] = rows[place]
            mask[index, : len(rows[place])] = 1
        yield PaddedBatch(places=places, ids=ids, mask=mask)


def embed_in_batches(rows: Rows, batch_rows: int, hidden_states: Callable[[PaddedBatch], Vectors]) -> Vectors:
    """Unit rows [n, hidden] out of `hidden_states` [rows, width, hidden] of each batch."""
    answers: list[Vectors] = [np.empty(0, np.float32)] * len(rows)
    for batch in sorted_batches(rows, batch_rows):
        put_last_tokens(answers, batch, hidden_states(batch))
    return np.stack(answers)


def score_in_batches(rows: Rows, batch_rows: int, logits: Callable[[PaddedBatch], Vectors]) -> Vectors:
    """Scores [n, 1] out of `logits` [rows, 1] of each batch."""
    answers = np.empty((len(rows), 1), np.float32)
    for batch in sorted_batches(rows, batch_rows):
        answers[batch.places] = 1 / (1 + np.exp(-logits(batch)))
    return answers


def put_last_tokens(answers: list[Vectors], batch: PaddedBatch, states: Vectors) -> None:
    """Puts the unit vector of each row's last token out of `states` [rows, width, hidden] in its place."""
    last = states[np.arange(len(batch.places)), batch.last]
    for place, vector in zip(batch.places, last, strict=True):
        answers[place] = vector / np.linalg.norm(vector)
