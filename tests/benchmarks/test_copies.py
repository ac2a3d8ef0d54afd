"""Copies of a program take batches in turns."""

from __future__ import annotations

import threading

from benchmarks.workers.copies import Copies


def test_copies_run_batches_at_the_same_time_and_keep_their_order() -> None:
    together = threading.Barrier(2, timeout=20)

    def run(_program: str, batch: int) -> int:
        together.wait()
        return 10 * batch

    assert Copies(["a", "b"]).map(run, [1, 2, 3, 4]) == [10, 20, 30, 40]


def test_each_copy_runs_one_batch_at_a_time() -> None:
    locks = [threading.Lock(), threading.Lock()]

    def run(lock: threading.Lock, batch: int) -> int:
        assert lock.acquire(blocking=False)
        try:
            return batch
        finally:
            lock.release()

    assert Copies(locks).map(run, list(range(200))) == list(range(200))


def test_single_copy_runs_in_the_calling_thread() -> None:
    assert Copies([None]).map(lambda _, __: threading.get_ident(), [1]) == [threading.get_ident()]
