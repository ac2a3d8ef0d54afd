from __future__ import annotations

import numpy as np
import pytest

from qwen3_triton.client import InvalidInputError
from qwen3_triton.client.requests import RequestLimits, RowRequest, limit_requests, pack_requests
from qwen3_triton.client.tokenization import TokenRows


def random_rows(seed: int, count: int) -> TokenRows:
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(rng.integers(1, 60, count))]).astype(np.int64)
    return TokenRows(rng.integers(0, 1000, int(starts[-1])), starts)


def pack(tokens: TokenRows, limits: RequestLimits) -> list[RowRequest]:
    return list(pack_requests(tokens, np.arange(len(tokens.lengths)), lambda: limits))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 7, 100])
@pytest.mark.parametrize(
    "limits", [RequestLimits(rows=8), RequestLimits(rows=1), RequestLimits(rows=64, tokens=100)], ids=str
)
def test_every_row_is_sent_once_within_the_limits(seed: int, count: int, limits: RequestLimits) -> None:
    tokens = random_rows(seed, count)
    seen = []
    for request in pack(tokens, limits):
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
    padded = sum(request.input_ids.size for request in pack(tokens, RequestLimits(rows=8)))
    assert padded < 1.1 * len(tokens.ids)


def test_full_requests() -> None:
    requests = pack(random_rows(0, 20), RequestLimits(rows=8))
    assert [len(request.positions) for request in requests] == [8, 8, 4]


def test_no_rows_no_requests() -> None:
    empty = TokenRows(np.zeros(0, np.int64), np.zeros(1, np.int64))
    assert pack(empty, RequestLimits(rows=8)) == []


def test_a_caller_can_only_lower_the_limit_of_the_server() -> None:
    assert limit_requests(32, None).rows == 32
    assert limit_requests(32, 4).rows == 4
    assert limit_requests(32, 100).rows == 32
    with pytest.raises(InvalidInputError, match="max_rows_per_request"):
        limit_requests(32, 0)


def test_positions_are_those_of_the_caller() -> None:
    tokens = random_rows(1, 5)
    positions = np.asarray([2, 3, 5, 7, 11])
    [request] = pack_requests(tokens, positions, lambda: RequestLimits(rows=8))
    assert sorted(request.positions.tolist()) == positions.tolist()
    for position, row in zip(request.positions.tolist(), request.input_ids, strict=True):
        assert row[row >= 0].tolist() == tokens.row(positions.tolist().index(position)).tolist()


@pytest.mark.parametrize("rows", [2, 3, 8])
def test_halves_have_the_rows_of_the_whole(rows: int) -> None:
    [whole] = pack(random_rows(2, rows), RequestLimits(rows=8))
    halves = whole.halves()
    assert all(len(half.positions) for half in halves)
    np.testing.assert_array_equal(np.concatenate([half.positions for half in halves]), whole.positions)
    np.testing.assert_array_equal(np.concatenate([half.input_ids for half in halves]), whole.input_ids)
