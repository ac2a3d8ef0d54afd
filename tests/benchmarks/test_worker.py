"""A real worker process: what it answers, and what it says when it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.checkpoint import cached_checkpoint
from benchmarks.contenders import CannotRun
from benchmarks.contenders.worker import Worker
from benchmarks.model_shape import SHAPES

_ROWS = [[5, 6, 7, 0], [1, 0], [2, 3, 0]]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    checkpoint = cached_checkpoint(SHAPES["tiny"], tmp_path_factory.mktemp("cache"))
    options = {"model": str(checkpoint), "threads": "1", "dtype": "float32", "compile": "no"}
    worker = Worker("transformers_model", options)
    yield worker
    worker.stop()


def test_vectors_are_unit_rows_whatever_the_batch(worker: Worker) -> None:
    together, alone = worker.embed(_ROWS, 3), worker.embed(_ROWS, 1)
    assert together.shape == (3, SHAPES["tiny"].hidden)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert np.allclose(together, alone, atol=1e-5)


def test_every_pass_is_a_sample_of_its_own(worker: Worker) -> None:
    samples = worker.time(_ROWS, 2, 3)
    assert len(samples) == 3
    assert all(sample.wall_s > 0 for sample in samples)
    assert set(worker.versions) == {"torch", "transformers"}


def test_request_that_fails_is_told_and_the_next_one_answered(worker: Worker) -> None:
    with pytest.raises(CannotRun, match="IndexError"):
        worker.embed([[10**6]], 1)
    assert worker.embed(_ROWS, 3).shape[0] == 3


def test_program_that_does_not_load_says_why_without_paths(tmp_path: Path) -> None:
    options = {"model": str(tmp_path / "none"), "threads": "1", "dtype": "float32", "compile": "no"}
    with pytest.raises(CannotRun) as caught:
        Worker("transformers_model", options).embed(_ROWS, 1)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_process_that_dies_is_told() -> None:
    with pytest.raises(CannotRun, match=r"status 1: .*no_such_worker"):
        Worker("no_such_worker", {}).embed(_ROWS, 1)


def test_worker_rests_where_memory_is_short_and_starts_again(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.embed(_ROWS, 3)
    monkeypatch.setattr("benchmarks.contenders.worker.is_short", lambda: False)
    worker.rest()
    running = worker._running
    assert running is not None
    monkeypatch.setattr("benchmarks.contenders.worker.is_short", lambda: True)
    worker.rest()
    assert worker._running is None
    assert len(worker.time(_ROWS, 2, 3)) == 3
    assert worker._running is not running
