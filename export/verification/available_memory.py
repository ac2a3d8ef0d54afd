"""Memory that this process can still use."""

from __future__ import annotations

from pathlib import Path

_CGROUPS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Limit and use of a container's control group, versions 2 and 1."""


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that are available on the machine and within the container's limit; None if unknown."""
    found = [_machine_memory(root), *(_within_limit(root / limit, root / used) for limit, used in _CGROUPS)]
    return min((size for size in found if size is not None), default=None)


def _machine_memory(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * sizes[0] if sizes else None


def _within_limit(limit: Path, used: Path) -> int | None:
    try:
        return max(0, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):
        # version 2 writes `max` for no limit
        return None
