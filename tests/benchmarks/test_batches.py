"""Padded batches and the order of their outputs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.batches import PaddedBatch, embed_in_batches, sorted_batches
from benchmarks.rows import Vectors

_ROWS = [[5, 6, 7], [1], [2, 3], [4, 4]]


def test_sorted_batches_are_right_padded() -> None:
    first, second = sorted_batches(_ROWS, 2)
    assert (first.indices, second.indices) == ([1, 2], [3, 0])
    assert first.ids.tolist() == [[1, 0], [2, 3]]
    assert first.mask.tolist() == [[1, 0], [1, 1]]
    assert first.positions.tolist() == [[0, 1], [0, 1]]
    assert second.last_columns.tolist() == [1, 2]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 4, 9])
def test_outputs_are_in_the_order_of_the_rows(batch_rows: int) -> None:
    def last_id_and_one(batch: PaddedBatch) -> Vectors:
        return np.stack([batch.ids, np.ones_like(batch.ids)], axis=-1).astype(np.float32)

    vectors = embed_in_batches(_ROWS, batch_rows, last_id_and_one)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.allclose(vectors[:, 0] / vectors[:, 1], [7, 1, 3, 4])
