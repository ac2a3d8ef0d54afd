"""Engines with predefined outputs and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.contenders.contender import Contender
from benchmarks.record import Sample
from benchmarks.rows import Rows, Vectors


class FakeEngine:
    """Embeds a row as [last id, 1], normalized; a pass takes `walls_s[batch_rows]` seconds, by default one second."""

    versions: Mapping[str, str] = {}

    def __init__(self, walls_s: Mapping[int, float] | None = None, batched_error: float = 0.0) -> None:
        self.walls_s = walls_s or {}
        self.batched_error = batched_error
        self.timed: list[int] = []
        self.most_rows = 0
        """Most rows ever embedded or timed at once."""
        self.releases = 0

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """Embed `rows`; in batches the second component is off by `batched_error`."""
        self.most_rows = max(self.most_rows, len(rows))
        error = self.batched_error if batch_rows > 1 else 0.0
        vectors = np.asarray([[row[-1], 1 + error] for row in rows], np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:  # noqa: ARG002
        """Return the predefined time for each pass."""
        self.timed.append(batch_rows)
        wall = self.walls_s.get(batch_rows, 1.0)
        return [Sample(wall_s=wall, cpu_s=wall)] * passes

    def release_memory(self) -> None:
        """Count the call."""
        self.releases += 1


class CompilingEngine(FakeEngine):
    """Takes half a minute longer for each batch size that it has not seen."""

    def __init__(self, walls_s: Mapping[int, float]) -> None:
        super().__init__(walls_s)
        self._compiled: set[int] = set()

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """Embed `rows`, compiling for full batches and for the last one."""
        self._compiled |= _batch_sizes(rows, batch_rows)
        return super().embed(rows, batch_rows)

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """Return the predefined times; the first one includes compilation."""
        missing = len(_batch_sizes(rows, batch_rows) - self._compiled)
        self._compiled |= _batch_sizes(rows, batch_rows)
        first, *others = super().time(rows, batch_rows, passes)
        return [Sample(wall_s=first.wall_s + 30 * missing, cpu_s=first.cpu_s + 30 * missing), *others]


def _batch_sizes(rows: Rows, batch_rows: int) -> set[int]:
    return {min(batch_rows, len(rows) - first) for first in range(0, len(rows), batch_rows)}


class FakeScorer(FakeEngine):
    """Scores a row as a tenth of its last id."""

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """Return scores [n, 1], off by `batched_error` in batches."""
        error = self.batched_error if batch_rows > 1 else 0.0
        return np.asarray([[row[-1] / 10 + error] for row in rows], np.float32)


def fake_contender(
    engine: FakeEngine,
    *,
    program: str = "p",
    options: str = "",
    batch_rows: Sequence[int | None] = (None, 1, 2),
    refines: str | None = None,
) -> Contender:
    """Return a contender, by default with one batch of all rows and batches of one and two."""
    return Contender(
        program=program,
        options=options,
        refines=refines,
        engine=engine,
        batch_rows=batch_rows,
        arithmetic="fp32",
        gate_min_cosine=0.99,
        gate_max_score_error=1e-3,
    )
