"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

_LINE_EVERY_S = 10.0


def open_progress() -> LineProgress | BarProgress:
    """A bar where stderr is a terminal, otherwise plain lines."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()


class LineProgress:
    """A line for each stage, and one for its steps every ten seconds."""

    def __init__(self) -> None:
        self._stage = ""
        self._spoken_s = 0.0

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there is no display to close."""

    def stage(self, text: str) -> None:
        """Writes the stage's line."""
        self._stage, self._spoken_s = text, time.monotonic()
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def step(self, done: int, total: int) -> None:
        """Writes how far the stage is, not more often than every ten seconds."""
        now = time.monotonic()
        if now - self._spoken_s >= _LINE_EVERY_S:
            self._spoken_s = now
            sys.stderr.write(f"{self._stage}: {done} of {total}\n")
            sys.stderr.flush()

    def note(self, text: str) -> None:
        """Writes a line."""
        sys.stderr.write(f"note: {text}\n")


class BarProgress:
    """One bar for each stage."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Bars(*columns, console=self._console)
        self._task: TaskID | None = None

    def __enter__(self) -> BarProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def stage(self, text: str) -> None:
        """Ends the bar before and begins another."""
        if self._task is not None:
            self._bars.stop_task(self._task)
        self._task = self._bars.add_task(text, total=None)

    def step(self, done: int, total: int) -> None:
        """Moves the bar."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Writes a line above the bars."""
        self._console.print(f"note: {text}", highlight=False)
