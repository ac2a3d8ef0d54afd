from __future__ import annotations

import numpy as np
import pytest

from qwen3_triton.client import InvalidInputError
from qwen3_triton.client.requests import RequestLimits, limit_requests, pack_requests
from qwen3_triton.client.tokenization import TokenRows


def random_rows(seed: int, count: int) -> TokenRows:
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(rng.integers(1, 60, count))]).astype(np.int64)
    return TokenRows(rng.integers(0, 1000, int(starts[-1])), starts)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 7, 100])
@pytest.mark.parametrize(
    "limits", [RequestLimits(rows=8), RequestLimits(rows=1), RequestLimits(rows=64, tokens=100)], ids=str
)
def test_every_row_is_sent_once_within_the_limits(seed: int, count: int, limits: RequestLimits) -> None:
    tokens = random_rows(seed, count)
    seen = []
    for request in pack_requests(tokens, lambda: limits):
        rows, width = request.input_ids.shape
        assert request.input_ids.dtype == np.int64
        assert 1 <= rows <= limits.rows
        assert rows == 1 or rows * width <= limits.tokens
        for position, padded in zip(request.positions, request.input_ids, strict=True):
            row = tokens.row(int(position))
            assert padded[: len(row)].tolist() == row.tolist()
            assert (padded[len(row) :] == -1).all()
            seen.append(int(position))
    assert sorted(seen) == list(range(count))


def test_similar_lengths_share_a_request() -> None:
    tokens = random_rows(3, 200)
    padded = sum(request.input_ids.size for request in pack_requests(tokens, lambda: RequestLimits(rows=8)))
    assert padded < 1.1 * len(tokens.ids)


def test_full_requests() -> None:
    requests = list(pack_requests(random_rows(0, 20), lambda: RequestLimits(rows=8)))
    assert [len(request.positions) for request in requests] == [8, 8, 4]


def test_no_rows_no_requests() -> None:
    empty = TokenRows(np.zeros(0, np.int64), np.zeros(1, np.int64))
    assert list(pack_requests(empty, lambda: RequestLimits(rows=8))) == []


def test_a_caller_can_only_lower_the_limit_of_the_server() -> None:
    assert limit_requests(32, None).rows == 32
    assert limit_requests(32, 4).rows == 4
    assert limit_requests(32, 100).rows == 32
    with pytest.raises(InvalidInputError, match="max_rows_per_request"):
        limit_requests(32, 0)
