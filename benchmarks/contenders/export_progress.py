"""Progress of an export during a benchmark run."""

from __future__ import annotations

from collections.abc import Callable

from qwen3_triton.export import Progress


class StageLines(Progress):
    """Logs every stage and note as an indented line."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    def stage(self, text: str) -> None:
        """Log a stage."""
        self._log(f"  {text}")

    def step(self, done: int, total: int) -> None:
        """Ignore a step: a log has no progress bar."""

    def note(self, text: str) -> None:
        """Log a note."""
        self._log(f"  {text}")
