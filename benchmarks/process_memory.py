"""Memory of a process and of its descendants."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

_PROC = Path("/proc")
_ALLOCATED = ("RssAnon:", "RssShmem:")
_PEAK = ("VmHWM:",)


def allocated_mb(pid: int) -> float:
    """Return the resident memory that the process has allocated or shares, without pages of mapped files, in MB.

    A process that has exited has 0.
    """
    return _status_mb(pid, _ALLOCATED)


def peak_mb(pid: int) -> float:
    """Return the largest resident memory that the process has had, with pages of mapped files, in MB.

    `ru_maxrss` would not do: a new process begins with that of the process that started it.
    """
    return _status_mb(pid, _PEAK)


def _status_mb(pid: int, names: Collection[str]) -> float:
    """Return the sum of sizes in `/proc/<pid>/status` in MB; 0 for a process that has exited."""
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    sizes = [line.split() for line in lines if line.startswith(tuple(names))]
    return sum(float(size) for _, size, _ in sizes) * 1024 / 1e6


def descendants(pid: int) -> dict[int, str]:
    """Return the names of all running descendants of a process, by process id."""
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # the name is in parentheses and may contain spaces
        name, _, rest = stat.partition("(")[2].rpartition(")")
        child = int(folder.name)
        names[child] = name
        children.setdefault(int(rest.split()[1]), []).append(child)
    found, pending = {}, list(children.get(pid, ()))
    while pending:
        child = pending.pop()
        found[child] = names[child]
        pending += children.get(child, ())
    return found
