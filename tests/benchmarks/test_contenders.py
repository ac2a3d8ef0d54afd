"""Batches, profiles and the checks that stand before a contender's time."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contenders.batches import PaddedBatch, embed_in_batches, sorted_batches
from benchmarks.contenders.contender import Bench, CannotRun, Contender, Recipe, Rows, Vectors, prepare_all
from benchmarks.contenders.optimum_environment import require_no_cuda, without_paths
from benchmarks.contenders.session import own_durations
from benchmarks.measurement import check_vectors, interleave

_ROWS = [[5, 6, 7], [1], [2, 3], [4, 4]]


def test_sorted_batches_pad_the_shorter_rows_at_the_right() -> None:
    first, second = sorted_batches(_ROWS, 2)
    assert (first.places, second.places) == ([1, 2], [3, 0])
    assert first.ids.tolist() == [[1, 0], [2, 3]]
    assert first.mask.tolist() == [[1, 0], [1, 1]]
    assert second.last.tolist() == [1, 2]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 4, 9])
def test_answers_come_back_in_the_callers_order(batch_rows: int) -> None:
    def last_id_and_one(batch: PaddedBatch) -> Vectors:
        return np.stack([batch.ids, np.ones_like(batch.ids)], axis=-1).astype(np.float32)

    vectors = embed_in_batches(_ROWS, batch_rows, last_id_and_one)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.allclose(vectors[:, 0] / vectors[:, 1], [7, 1, 3, 4])


def _contender(answer: Sequence[Sequence[float]]) -> Contender:
    def embed(_rows: Rows) -> Vectors:
        return np.asarray(answer, np.float32)

    return Contender(program="p", setting="s", versions={}, embed=embed)


def test_right_vectors_pass() -> None:
    reference = np.eye(2, dtype=np.float32)
    assert check_vectors(_contender([[1, 0], [0, 1]]), _ROWS, reference) == (1.0, None)


@pytest.mark.parametrize("wrong", [[0.1, 1.0], [float("nan"), 1.0]])
def test_wrong_vectors_keep_a_contender_out(wrong: list[float]) -> None:
    _, fault = check_vectors(_contender([[1, 0], wrong]), _ROWS, np.eye(2, dtype=np.float32))
    assert fault is not None
    assert "min cosine" in fault


def test_contenders_take_turns_in_changing_order() -> None:
    turns: list[str] = []
    runs = [functools.partial(turns.append, name) for name in "abc"]
    timings = interleave(runs, 6, 1, lambda _: None)
    rounds = ["".join(turns[first : first + 3]) for first in range(0, len(turns), 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len(set(rounds)) > 1
    assert [len(samples) for samples in timings.samples] == [6] * 3
    assert [len(samples) for samples in timings.warmups] == [1] * 3
    assert len(timings.load_average) == 6


def test_program_that_cannot_run_is_listed_with_its_reason(tmp_path: Path) -> None:
    def prepare(_bench: Bench) -> Sequence[Contender]:
        raise CannotRun("no such processor")

    lines: list[str] = []
    bench = Bench(checkpoint=tmp_path, cache=tmp_path, threads=1, say=lines.append)
    prepared = prepare_all([Recipe(program="p", prepare=prepare)], bench)
    assert prepared.absent == {"p": "no such processor"}
    assert lines == ["preparing p", "p cannot run: no such processor"]


def test_cuda_packages_are_refused_before_they_are_installed() -> None:
    require_no_cuda(["torch", "numpy", "tritonclient"])
    with pytest.raises(CannotRun, match="nvidia-cublas"):
        require_no_cuda(["torch", "nvidia-cublas", "triton"])


def test_reasons_hold_no_paths() -> None:
    assert without_paths("no /some/where/model.onnx at https://host/x or a/b") == "no <path> at <path> or a/b"


def test_time_inside_a_loop_is_counted_once() -> None:
    def kernel(name: str, start: int, duration: int) -> dict[str, object]:
        args = {"op_name": name}
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration, "args": args}

    events = [kernel("MatMul", 0, 10), kernel("Loop", 10, 50), kernel("Add", 12, 20), kernel("Mul", 40, 5)]
    events.append(kernel("MatMul", 60, 7))
    spent = [dict(event) for event in own_durations(events)]
    assert spent == [{"MatMul": 10}, {"Loop": 25}, {"Add": 20}, {"Mul": 5}, {"MatMul": 7}]
