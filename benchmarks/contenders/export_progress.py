"""How an export inside of a run tells where it is: a line for every stage."""

from __future__ import annotations

from collections.abc import Callable

from qwen3_triton.export import Progress


class StageLines(Progress):
    """Says every stage and note, indented below the contender that they belong to."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def stage(self, text: str) -> None:
        """A line."""
        self._say(f"  {text}")

    def step(self, done: int, total: int) -> None:
        """Ignored: a log has no bar."""

    def note(self, text: str) -> None:
        """A line."""
        self._say(f"  {text}")
