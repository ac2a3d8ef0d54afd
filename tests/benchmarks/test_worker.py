"""Results and errors of a real worker process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.checkpoint import cached_checkpoint
from benchmarks.contenders import ContenderUnavailableError
from benchmarks.contenders.layout import Layout
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


def test_embeddings_have_unit_norm_and_do_not_depend_on_the_batch(worker: Worker) -> None:
    together, alone = worker.embed(_ROWS, 3), worker.embed(_ROWS, 1)
    assert together.shape == (3, SHAPES["tiny"].hidden)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("layout", [Layout(copies=2, threads=1), Layout(threads=2, pinned=True)])
def test_layout_does_not_change_outputs(worker: Worker, layout: Layout, tmp_path: Path) -> None:
    checkpoint = cached_checkpoint(SHAPES["tiny"], tmp_path)
    options = {"model": str(checkpoint), "dtype": "float32", "compile": "no", **layout.options()}
    other = Worker("transformers_model", options)
    try:
        assert np.allclose(other.embed(_ROWS, 1), worker.embed(_ROWS, 1), atol=1e-6)
        assert len(other.time(_ROWS, 1, 2)) == 2
    finally:
        other.stop()


def test_every_pass_gives_one_sample(worker: Worker) -> None:
    samples = worker.time(_ROWS, 2, 3)
    assert len(samples) == 3
    assert all(sample.wall_s > 0 for sample in samples)
    assert set(worker.versions) == {"torch", "transformers"}


def test_failed_request_does_not_affect_the_next_one(worker: Worker) -> None:
    with pytest.raises(ContenderUnavailableError, match="IndexError"):
        worker.embed([[10**6]], 1)
    assert worker.embed(_ROWS, 3).shape[0] == 3


def test_program_that_fails_to_load_reports_a_reason_without_paths(tmp_path: Path) -> None:
    options = {"model": str(tmp_path / "none"), "threads": "1", "dtype": "float32", "compile": "no"}
    with pytest.raises(ContenderUnavailableError) as caught:
        Worker("transformers_model", options).embed(_ROWS, 1)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_process_that_exits_is_reported_with_its_status() -> None:
    with pytest.raises(ContenderUnavailableError, match=r"status 1: .*no_such_worker"):
        Worker("no_such_worker", {}).embed(_ROWS, 1)


def test_worker_stops_if_memory_is_short_and_restarts(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.embed(_ROWS, 3)
    monkeypatch.setattr("benchmarks.contenders.worker.is_memory_short", lambda: False)
    worker.release_memory()
    running = worker._running
    assert running is not None
    monkeypatch.setattr("benchmarks.contenders.worker.is_memory_short", lambda: True)
    worker.release_memory()
    assert worker._running is None
    assert len(worker.time(_ROWS, 2, 3)) == 3
    assert worker._running is not running


def test_process_that_died_is_replaced(worker: Worker) -> None:
    worker.embed(_ROWS, 3)
    died = worker._running
    assert died is not None
    died._process.kill()
    died._process.wait()
    with pytest.raises(ContenderUnavailableError, match="exited with status -9"):
        worker.embed(_ROWS, 3)
    assert worker.embed(_ROWS, 3).shape[0] == 3
