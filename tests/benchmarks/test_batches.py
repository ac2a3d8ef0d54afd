"""Padded batches, and answers in the callers' order."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.batches import PaddedBatch, embed_in_batches, sorted_batches
from benchmarks.rows import Vectors

_ROWS = [[5, 6, 7], [1], [2, 3], [4, 4]]


def test_sorted_batches_pad_the_shorter_rows_at_the_right() -> None:
    first, second = sorted_batches(_ROWS, 2)
    assert (first.places, second.places) == ([1, 2], [3, 0])
    assert first.ids.tolist() == [[1, 0], [2, 3]]
    assert first.mask.tolist() == [[1, 0], [1, 1]]
    assert first.positions.tolist() == [[0, 1], [0, 1]]
    assert second.last.tolist() == [1, 2]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 4, 9])
def test_answers_come_back_in_the_callers_order(batch_rows: int) -> None:
    def last_id_and_one(batch: PaddedBatch) -> Vectors:
        return np.stack([batch.ids, np.ones_like(batch.ids)], axis=-1).astype(np.float32)

    vectors = embed_in_batches(_ROWS, batch_rows, last_id_and_one)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.allclose(vectors[:, 0] / vectors[:, 1], [7, 1, 3, 4])
