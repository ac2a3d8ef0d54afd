"""Layouts of programs on the cores: copies, threads, and whether the threads are pinned."""

from __future__ import annotations

from dataclasses import dataclass

from ..processor import Processor

_PARTS = (2, 4, 8)
"""Numbers of copies among which the threads are divided, and parts of the threads that one copy has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a program uses the cores."""

    copies: int = 1
    """Copies that process batches in parallel, like instances in Triton."""
    threads: int
    """Threads of each copy."""
    pinned: bool = False
    """Whether each thread stays on one core."""

    @property
    def name(self) -> str:
        """Name in records."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        text = threads if self.copies == 1 else f"{self.copies} copies, {threads} each"
        return f"{text}, pinned" if self.pinned else text

    def options(self) -> dict[str, str]:
        """Return the options of a worker."""
        return {"threads": str(self.threads), "copies": str(self.copies), "pinned": "yes" if self.pinned else "no"}


def layouts(processor: Processor, threads: int) -> tuple[Layout, ...]:
    """Return the layouts in which every program is tried, first the default: one copy with all threads.

    Where several logical processors share a core, one thread per core is tried too, since they also share its units.
    Fewer threads may be faster for short texts.

    Args:
        processor: the processor.
        threads: threads of the run.
    """
    found = []
    for total in dict.fromkeys((threads, max(1, threads // processor.threads_per_core))):
        found += [Layout(threads=total), Layout(threads=total, pinned=True)]
        found += [Layout(copies=copies, threads=total // copies) for copies in _PARTS if total % copies == 0]
    found += [Layout(threads=threads // part) for part in _PARTS if threads >= part]
    return tuple(dict.fromkeys(found))
