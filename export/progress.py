"""How long work tells how far it is: the exporter calls, the command line draws."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears of stages and of steps within one."""

    def stage(self, text: str) -> None:
        """A new stage begins."""

    def step(self, done: int, total: int) -> None:
        """`done` of `total` steps of the present stage are over."""

    def note(self, text: str) -> None:
        """Something that the reader should know."""


class SilentProgress:
    """Draws nothing."""

    def stage(self, text: str) -> None:
        """Ignored."""

    def step(self, done: int, total: int) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""
