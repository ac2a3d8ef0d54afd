"""Progress of long operations: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

_LINE_EVERY_S = 10.0


def open_progress(*, quiet: bool = False) -> LineProgress | BarProgress:
    """Return a progress bar if stderr is a terminal, otherwise plain lines.

    With `quiet`, nothing remains of a bar when it ends, and work of a few seconds prints no line.
    """
    return BarProgress(quiet=quiet) if sys.stderr.isatty() else LineProgress(quiet=quiet)


class LineProgress:
    """Prints one line per stage unless it is quiet, and one line of progress every ten seconds."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._stage = ""
        self._started_s = 0.0
        self._first: int | None = None
        self._printed_s = 0.0

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing, as there is no display to close."""

    def stage(self, text: str) -> None:
        """Start a stage and print its name."""
        self._stage, self._started_s, self._first = text, time.monotonic(), None
        self._printed_s = self._started_s
        if not self._quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def step(self, done: int, total: int) -> None:
        """Print the progress of the stage, at most every ten seconds."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._started_s = done, now
        if now - self._printed_s >= _LINE_EVERY_S:
            self._printed_s = now
            sys.stderr.write(f"{self._stage}: {done} of {total}{self._pace(done - self._first, total - done, now)}\n")
            sys.stderr.flush()

    def _pace(self, done: int, left: int, now_s: float) -> str:
        """Return the speed and the time left, from the `done` steps since the first report."""
        if done < 1 or now_s <= self._started_s:
            return ""
        speed = done / (now_s - self._started_s)
        return f" ({speed:.3g}/s, {_duration(left / speed)} left)"

    def note(self, text: str) -> None:
        """Print a note."""
        sys.stderr.write(f"note: {text}\n")


class BarProgress:
    """Shows one progress bar per stage."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bars = Bars(*columns, console=self._console, transient=quiet)
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


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
