"""Progress of long operations: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

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


@dataclass(slots=True)
class _Speed:
    """Speed of a stage since its first report, so that the steps of an earlier run do not count."""

    started_s: float
    done: int
    tokens: int

    def per_s(self, count: int, now_s: float) -> float:
        """Return `count` per second."""
        return count / max(now_s - self.started_s, 1e-9)

    def describe(self, done: int, tokens: int, now_s: float) -> str:
        """Return steps per second, and tokens per second if there are any; empty after the first report."""
        if done <= self.done or now_s <= self.started_s:
            return ""
        speed = f"{self.per_s(done - self.done, now_s):.3g}/s"
        return f"{speed}, {self.per_s(tokens - self.tokens, now_s):,.0f} tokens/s" if tokens else speed


class LineProgress:
    """Prints one line per stage unless it is quiet, and one line of progress every ten seconds.

    The duration of a stage that took as long is printed at its end.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._stage = ""
        self._speed: _Speed | None = None
        self._started_s = self._printed_s = 0.0

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Finish the stage, unless an exception ended it."""
        if kind is None:
            self._finish()

    def stage(self, text: str) -> None:
        """Finish the stage, start another, and print its name."""
        self._finish()
        self._stage, self._speed = text, None
        self._started_s = self._printed_s = time.monotonic()
        if not self._quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def step(self, done: int, total: int, tokens: int = 0) -> None:
        """Print the progress of the stage, at most every ten seconds; `tokens` have been computed so far."""
        now = time.monotonic()
        if self._speed is None:
            self._speed = _Speed(now, done, tokens)
        if now - self._printed_s >= _LINE_EVERY_S:
            self._printed_s = now
            sys.stderr.write(f"{self._stage}: {done} of {total}{self._pace(done, total, tokens, now)}\n")
            sys.stderr.flush()

    def _finish(self) -> None:
        took_s = time.monotonic() - self._started_s
        if self._stage and took_s >= _LINE_EVERY_S:
            sys.stderr.write(f"{self._stage}: took {_duration(took_s)}\n")

    def _pace(self, done: int, total: int, tokens: int, now_s: float) -> str:
        """Return the speed and the time left."""
        speed = "" if self._speed is None else self._speed.describe(done, tokens, now_s)
        if self._speed is None or not speed:
            return ""
        return f" ({speed}, {_duration((total - done) / self._speed.per_s(done - self._speed.done, now_s))} left)"

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
            TextColumn("{task.fields[speed]}"),
        )
        self._bars = Bars(*columns, console=self._console, transient=quiet)
        self._task: TaskID | None = None
        self._speed: _Speed | None = None

    def __enter__(self) -> BarProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def stage(self, text: str) -> None:
        """Finish the current bar and start another."""
        if self._task is not None:
            self._bars.stop_task(self._task)
        self._task, self._speed = self._bars.add_task(text, total=None, speed=""), None

    def step(self, done: int, total: int, tokens: int = 0) -> None:
        """Update the bar of the stage; `tokens` have been computed so far, and the speed is shown if there are any."""
        now = time.monotonic()
        if self._speed is None:
            self._speed = _Speed(now, done, tokens)
        if self._task is not None:
            speed = self._speed.describe(done, tokens, now) if tokens else ""
            self._bars.update(self._task, completed=done, total=total, speed=speed)

    def note(self, text: str) -> None:
        """Print a note above the bars."""
        self._console.print(f"note: {text}", highlight=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
