"""Padded batches and the order of their outputs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.batches import common_prefix, sorted_batches, store_last_tokens, store_scores

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
    vectors, scores = [np.empty(0, np.float32)] * 4, np.empty((4, 1), np.float32)
    for batch in sorted_batches(_ROWS, batch_rows):
        store_last_tokens(vectors, batch, np.stack([batch.ids, np.ones_like(batch.ids)], axis=-1).astype(np.float32))
        store_scores(scores, batch, batch.ids[:, :1].astype(np.float32))
    together = np.stack(vectors)
    assert np.allclose(np.linalg.norm(together, axis=1), 1)
    assert np.allclose(together[:, 0] / together[:, 1], [7, 1, 3, 4])
    assert np.allclose(scores[:, 0], 1 / (1 + np.exp(-np.asarray([5, 1, 2, 4]))))


def test_common_prefix_leaves_a_token_of_every_row() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4, 5], [1, 2, 3, 9]]) == 2
    assert common_prefix([[1, 2], [1, 2, 3]]) == 1
    assert common_prefix([[1, 2], [2, 2]]) == 0
    assert common_prefix([[1, 2, 3]]) == 0
    assert common_prefix(_ROWS) == 0
