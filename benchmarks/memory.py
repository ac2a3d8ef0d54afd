"""Available memory of this machine."""

from __future__ import annotations

from pathlib import Path

_ENOUGH = 0.5
_FIELDS = ("MemTotal:", "MemAvailable:")


def available_bytes() -> int:
    """Return how much memory a new process could use without swapping."""
    return _read()[1]


def is_memory_short() -> bool:
    """Return whether less than half of the memory is available."""
    total, available = _read()
    return available < _ENOUGH * total


def _read() -> tuple[int, int]:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    found = {name: int(count) * 1024 for name, count, *_ in map(str.split, lines)}
    total, available = (found[field] for field in _FIELDS)
    return total, available
