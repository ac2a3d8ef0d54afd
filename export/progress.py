"""Progress reports of long operations."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives progress reports, to show them on a terminal for example."""

    def stage(self, text: str) -> None:
        """Start a new stage, described by `text`."""

    def step(self, done: int, total: int) -> None:
        """Report that `done` of `total` steps of the current stage are complete."""

    def note(self, text: str) -> None:
        """Report something that the user should know."""


class SilentProgress:
    """A `Progress` that ignores all reports; also a base class for partial implementations."""

    def stage(self, text: str) -> None:
        """Ignore the stage."""

    def step(self, done: int, total: int) -> None:
        """Ignore the step."""

    def note(self, text: str) -> None:
        """Ignore the note."""
