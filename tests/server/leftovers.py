"""Processes and shared memory that a server may leave on this machine."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from qwen3_triton.server.supervise import SHARED_MEMORY, shared_memory_prefix

_TIMEOUT_S = 10.0


def processes_of(supervisor: int) -> dict[int, str]:
    """Return the commands of the server's processes by pid, recognized by the shared-memory prefix in the command."""
    prefix = shared_memory_prefix(supervisor)
    return {pid: command for pid, command in _commands().items() if prefix in command}


def shared_memory_of(supervisor: int) -> list[str]:
    """Return the names of the server's shared-memory regions."""
    return [region.name for region in SHARED_MEMORY.glob(f"{shared_memory_prefix(supervisor)}*")]


def child_of(parent: int) -> int:
    """Return the pid of the only child of `parent`."""
    (found,) = (pid for pid in _commands() if _parent(pid) == parent)
    return found


def processor_time_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds, which other processes hardly affect."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def await_nothing_left(supervisor: int, *, shared_memory: bool = True) -> None:
    """Wait until no process and no shared memory of the server is left; fail after ten seconds."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        if not processes_of(supervisor) and not (shared_memory and shared_memory_of(supervisor)):
            return
        time.sleep(0.05)
    raise AssertionError(f"left running: {processes_of(supervisor)} {shared_memory_of(supervisor)}")


def _commands() -> dict[int, str]:
    commands = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if command:  # a zombie has an empty command
                commands[int(folder.name)] = command
    return commands


def _parent(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None
