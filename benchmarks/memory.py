"""What is left of the machine's memory."""

from __future__ import annotations

from pathlib import Path

_ENOUGH = 0.5
_FIELDS = ("MemTotal:", "MemAvailable:")


def free_bytes() -> int:
    """What a process could still take."""
    return _read()[1]


def is_short() -> bool:
    """Whether less than half of the memory is free."""
    total, free = _read()
    return free < _ENOUGH * total


def _read() -> tuple[int, int]:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    found = {name: int(count) * 1024 for name, count, *_ in map(str.split, lines)}
    total, free = (found[field] for field in _FIELDS)
    return total, free
