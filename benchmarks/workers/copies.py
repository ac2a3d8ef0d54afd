"""Copies of a program in one process, which process batches in parallel, each with its share of the cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, TypeVar

Program = TypeVar("Program")
Batch = TypeVar("Batch")
Result = TypeVar("Result")


class Copies(Generic[Program]):
    """Programs that take batches in turns."""

    def __init__(self, programs: Sequence[Program]) -> None:
        """Take the copies, each of which runs one batch at a time."""
        self._count = len(programs)
        self._free: SimpleQueue[Program] = SimpleQueue()
        for program in programs:
            self._free.put(program)
        self._pool = ThreadPoolExecutor(self._count)

    def map(self, run: Callable[[Program, Batch], Result], batches: Sequence[Batch]) -> list[Result]:
        """Run all batches and return their results in the same order; a single copy runs in this thread."""

        def take(batch: Batch) -> Result:
            program = self._free.get()
            try:
                return run(program, batch)
            finally:
                self._free.put(program)

        if self._count == 1:
            return [take(batch) for batch in batches]
        # longest first, so that all copies finish at about the same time
        return list(self._pool.map(take, batches[::-1]))[::-1]
