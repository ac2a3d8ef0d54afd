"""Progress of long operations: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

_LINE_EVERY_S = 10.0


def open_progress() -> LineProgress | BarProgress:
    """Return a progress bar if stderr is a terminal, otherwise plain lines."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()


class LineProgress:
    """Prints one line per stage, and one line of progress every ten seconds."""

    def __init__(self) -> None:
        self._stage = ""
        self._printed_s = 0.0

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing, as there is no display to close."""

    def stage(self, text: str) -> None:
        """Start a stage and print its name."""
        self._stage, self._printed_s = text, time.monotonic()
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def step(self, done: int, total: int) -> None:
        """Print the progress of the stage, at most every ten seconds."""
        now = time.monotonic()
        if now - self._printed_s >= _LINE_EVERY_S:
            self._printed_s = now
            sys.stderr.write(f"{self._stage}: {done} of {total}\n")
            sys.stderr.flush()

    def note(self, text: str) -> None:
        """Print a note."""
        sys.stderr.write(f"note: {text}\n")


class BarProgress:
    """Shows one progress bar per stage."""

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
        """Finish the current bar and start another."""
        if self._task is not None:
            self._bars.stop_task(self._task)
        self._task = self._bars.add_task(text, total=None)

    def step(self, done: int, total: int) -> None:
        """Update the bar of the stage."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Print a note above the bars."""
        self._console.print(f"note: {text}", highlight=False)
