"""Batches of which Triton copied only a part of the ids: rows whose ids are missing return NaN."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from written_graph import random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.client.manifest import LOST_ROW_BITS, RowStatus
from qwen3_triton.export.graph import CudaProfile

BAD_ROW_BITS = 0x7FC00000
STATUS_OF_BITS = {BAD_ROW_BITS: RowStatus.INVALID, LOST_ROW_BITS: RowStatus.LOST}
VOCABULARY = 300
Requests = list[list[list[int]]]


@pytest.fixture(scope="module", params=["fp32", "int8", "cuda fp32 twin"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    folder = tmp_path_factory.mktemp("lost")
    source = write_checkpoint(folder / "tiny", TinyCheckpoint())
    twin = request.param.startswith("cuda")
    written = write_graph(
        source,
        folder / "out",
        Precision.INT8 if request.param == "int8" else Precision.FP32,
        cuda=CudaProfile(cpu_twin=True) if twin else None,
    )
    return onnxruntime.InferenceSession(written.file, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, requests: Requests, stale: int = 0) -> NDArray[np.float32]:
    """Run a batch of `requests`; ids after the first empty request are random, seeded by `stale`.

    Checks that the status of each row agrees with its bits.
    """
    rng = np.random.default_rng(stale)
    ids: list[int] = []
    intact = True
    for request in requests:
        request_ids = [token for row in request for token in row]
        intact &= bool(request_ids)
        ids += request_ids if intact else rng.integers(-1, VOCABULARY + 5, len(request_ids)).tolist()
    feed = {
        "input_ids": np.asarray(ids, np.int64),
        "row_lengths": np.asarray([len(row) for request in requests for row in request], np.int32),
        "request_lengths": np.asarray([sum(map(len, request)) for request in requests], np.int32),
    }
    vectors: NDArray[np.float32]
    vectors, status = session.run(["embedding", "row_status"], feed)
    expected = [[STATUS_OF_BITS.get(first, RowStatus.VALID)] for first in vectors[:, 0].view(np.uint32).tolist()]
    assert status.tolist() == expected
    return vectors


def bits(vectors: NDArray[np.float32]) -> list[set[int]]:
    """Return the distinct bit patterns of each row."""
    return [set(row.view(np.uint32).tolist()) for row in vectors]


ROWS = random_rows([3, 9, 1, 17, 5, 5, 8])
BEFORE: Requests = [[ROWS[0]], [ROWS[4], ROWS[5]]]
AFTER: Requests = [[ROWS[1]], [ROWS[2]], [ROWS[3]]]


@pytest.mark.parametrize("stale", range(4))
@pytest.mark.parametrize("rows", [0, 1, 5], ids=["no rows", "one empty row", "five empty rows"])
def test_rows_after_an_empty_request_are_lost_and_rows_before_it_are_exact(
    session: onnxruntime.InferenceSession, rows: int, stale: int
) -> None:
    empty: Requests = [[[]] * rows]
    vectors = run(session, [*BEFORE, *empty, *AFTER], stale)
    np.testing.assert_array_equal(vectors[:3], run(session, BEFORE))
    found = bits(vectors[3:])
    assert found[:rows] == [{BAD_ROW_BITS}] * rows
    assert found[rows:] == [{LOST_ROW_BITS}] * 3


def test_lost_rows_do_not_change_rows_of_one_length(session: onnxruntime.InferenceSession) -> None:
    """GPU graphs have another branch for such batches; the lengths of lost rows do not count."""
    equal = random_rows([6, 6, 6], seed=8)
    before: Requests = [[equal[0]], [equal[1], equal[2]]]
    vectors = run(session, [*before, [[]], *AFTER])
    np.testing.assert_array_equal(vectors[:3], run(session, before))
    assert bits(vectors[3:]) == [{BAD_ROW_BITS}] + [{LOST_ROW_BITS}] * 3


@pytest.mark.parametrize("rows", [0, 4])
def test_all_rows_after_the_first_empty_request_are_lost(session: onnxruntime.InferenceSession, rows: int) -> None:
    vectors = run(session, [[[]] * rows, *AFTER, [[]], *BEFORE])
    assert bits(vectors) == [{BAD_ROW_BITS}] * rows + [{LOST_ROW_BITS}] * 3 + [{BAD_ROW_BITS}] + [{LOST_ROW_BITS}] * 3


def test_empty_request_at_the_end_affects_no_row(session: onnxruntime.InferenceSession) -> None:
    vectors = run(session, [*BEFORE, *AFTER, [[]]])
    np.testing.assert_array_equal(vectors[:-1], run(session, [*BEFORE, *AFTER]))
    assert bits(vectors[-1:]) == [{BAD_ROW_BITS}]


def test_batch_of_only_empty_requests_is_nan(session: onnxruntime.InferenceSession) -> None:
    assert bits(run(session, [[[], []]])) == [{BAD_ROW_BITS}] * 2
    assert run(session, [[]]).shape[0] == 0


def test_invalid_row_is_not_lost(session: onnxruntime.InferenceSession) -> None:
    invalid: Requests = [[[VOCABULARY]], [[-1, -1]], [[1] * 65]]
    vectors = run(session, [*invalid, *AFTER])
    assert bits(vectors[:3]) == [{BAD_ROW_BITS}] * 3
    np.testing.assert_array_equal(vectors[3:], run(session, AFTER))
