"""An engine whose vectors and times are given, to test what is done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.contenders.contender import Contender
from benchmarks.record import Sample
from benchmarks.rows import Rows, Vectors


class GivenEngine:
    """Answers [last id, 1], of length 1; takes `walls_s[batch_rows]` seconds, one second where it is not told."""

    versions: Mapping[str, str] = {}

    def __init__(self, walls_s: Mapping[int, float] | None = None, wrong_in_company: float = 0.0) -> None:
        self.walls_s = walls_s or {}
        self.wrong_in_company = wrong_in_company
        self.timed: list[int] = []
        self.rests = 0

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """Wrong by `wrong_in_company` where rows share a batch."""
        shift = self.wrong_in_company if batch_rows > 1 else 0.0
        vectors = np.asarray([[row[-1], 1 + shift] for row in rows], np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:  # noqa: ARG002
        """What was given."""
        self.timed.append(batch_rows)
        wall = self.walls_s.get(batch_rows, 1.0)
        return [Sample(wall_s=wall, cpu_s=wall)] * passes

    def rest(self) -> None:
        """Counts."""
        self.rests += 1


class CompilingEngine(GivenEngine):
    """Takes half a minute more for a number of rows that it has not had yet."""

    def __init__(self, walls_s: Mapping[int, float]) -> None:
        super().__init__(walls_s)
        self._compiled: set[int] = set()

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """Compiles for a full batch and for the last one."""
        self._compiled |= _batch_sizes(rows, batch_rows)
        return super().embed(rows, batch_rows)

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """What was given, and what compiling takes in the first pass."""
        missing = len(_batch_sizes(rows, batch_rows) - self._compiled)
        self._compiled |= _batch_sizes(rows, batch_rows)
        first, *others = super().time(rows, batch_rows, passes)
        return [Sample(wall_s=first.wall_s + 30 * missing, cpu_s=first.cpu_s + 30 * missing), *others]


def _batch_sizes(rows: Rows, batch_rows: int) -> set[int]:
    return {min(batch_rows, len(rows) - first) for first in range(0, len(rows), batch_rows)}


class GivenScores(GivenEngine):
    """Scores a row with its last id, a tenth of it."""

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """[n, 1], wrong by `wrong_in_company` where rows share a batch."""
        shift = self.wrong_in_company if batch_rows > 1 else 0.0
        return np.asarray([[row[-1] / 10 + shift] for row in rows], np.float32)


def given_contender(
    engine: GivenEngine, *, program: str = "p", options: str = "", batch_rows: Sequence[int | None] = (None, 1, 2)
) -> Contender:
    """A contender that tries one batch, and batches of one and two."""
    return Contender(
        program=program,
        options=options,
        engine=engine,
        batch_rows=batch_rows,
        arithmetic="fp32",
        gate_min_cosine=0.99,
        gate_max_score_error=1e-3,
    )
