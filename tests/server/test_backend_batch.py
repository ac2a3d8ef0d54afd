"""Requests combined to one batch, and its output split again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qwen3_triton.server.backend.batch import (
    InvalidBatchError,
    InvalidRequestError,
    batch_input,
    join_requests,
    require_elements,
    split_rows,
)
from qwen3_triton.server.backend.settings import BatchInput, BatchInputKind, Settings

SETTINGS = Settings.from_json(
    json.dumps(
        {
            "max_batch_size": 8,
            "input": [
                {"name": "ids", "data_type": "TYPE_INT64", "dims": [-1], "allow_ragged_batch": True},
                {"name": "weight", "data_type": "TYPE_FP32", "dims": [1], "optional": True},
            ],
            "output": [{"name": "out", "data_type": "TYPE_FP32", "dims": [1]}],
            "batch_input": [
                {
                    "kind": "BATCH_ITEM_SHAPE_FLATTEN",
                    "target_name": ["lengths"],
                    "data_type": "TYPE_INT32",
                    "source_input": ["ids"],
                },
                {
                    "kind": "BATCH_ELEMENT_COUNT",
                    "target_name": ["sizes"],
                    "data_type": "TYPE_INT32",
                    "source_input": ["ids"],
                },
            ],
        }
    )
)


def test_ragged_rows_are_concatenated_with_their_lengths() -> None:
    requests = [{"ids": np.arange(6).reshape(2, 3)}, {"ids": np.array([[7]])}]

    batch = join_requests(requests, SETTINGS)

    np.testing.assert_array_equal(batch.feed["ids"], [0, 1, 2, 3, 4, 5, 7])
    np.testing.assert_array_equal(batch.feed["lengths"], [3, 3, 1])
    np.testing.assert_array_equal(batch.feed["sizes"], [6, 1])
    assert batch.feed["lengths"].dtype == batch.feed["sizes"].dtype == np.int32
    assert batch.rows == (2, 1)


@pytest.mark.parametrize("shape", [(0, 0), (2, 0), (0, 3), (0,)])
def test_requests_without_elements_are_invalid(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequestError, match=r"input ids has shape .* and no elements"):
        require_elements({"ids": np.zeros(shape, np.int64)}, SETTINGS)
    require_elements({"ids": np.zeros((1, 1), np.int64), "weight": np.zeros((1, 0))}, SETTINGS)


def test_regular_inputs_are_concatenated_along_the_batch() -> None:
    requests = [{"ids": np.ones((rows, 2)), "weight": np.full((rows, 1), rows)} for rows in (1, 2)]

    np.testing.assert_array_equal(join_requests(requests, SETTINGS).feed["weight"], [[1], [2], [2]])


def test_requests_with_different_optional_inputs_are_rejected() -> None:
    with pytest.raises(InvalidBatchError, match="optional"):
        join_requests([{"ids": np.ones((1, 2)), "weight": np.ones((1, 1))}, {"ids": np.ones((1, 2))}], SETTINGS)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (BatchInputKind.ITEM_SHAPE, [[3, 1], [3, 1], [2, 2]]),
        (BatchInputKind.ITEM_SHAPE_FLATTEN, [3, 1, 3, 1, 2, 2]),
        (BatchInputKind.ELEMENT_COUNT, [6, 4]),
    ],
)
def test_batch_inputs_match_the_model_configuration_reference(kind: BatchInputKind, expected: list[int]) -> None:
    entry = BatchInput(kind=kind, target="t", source="s")

    np.testing.assert_array_equal(batch_input(entry, [(2, 3, 1), (1, 2, 2)], batched=True), expected)


def test_output_is_split_by_rows() -> None:
    output = np.arange(6).reshape(3, 2)

    parts = split_rows("out", output, (1, 2), batched=True)

    np.testing.assert_array_equal(parts[0], [[0, 1]])
    np.testing.assert_array_equal(parts[1], [[2, 3], [4, 5]])


def test_output_with_another_number_of_rows_is_rejected() -> None:
    with pytest.raises(InvalidBatchError, match=r"output out has shape \[2, 1\] for 3 rows"):
        split_rows("out", np.ones((2, 1)), (1, 2), batched=True)
