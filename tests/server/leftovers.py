"""What a server may have left behind on this machine."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from qwen3_triton.server.supervise import SHARED_MEMORY, shared_memory_prefix

_PATIENCE_S = 10.0


def processes_of(supervisor: int) -> dict[int, str]:
    """Pid → command of the server's processes: each names its shared memory on its command line."""
    prefix = shared_memory_prefix(supervisor)
    return {pid: command for pid, command in _commands().items() if prefix in command}


def shared_memory_of(supervisor: int) -> list[str]:
    """Names of the server's regions."""
    return [region.name for region in SHARED_MEMORY.glob(f"{shared_memory_prefix(supervisor)}*")]


def child_of(parent: int) -> int:
    """Pid of the one child of `parent`."""
    (found,) = (pid for pid in _commands() if _parent(pid) == parent)
    return found


def await_nothing_left(supervisor: int, *, shared_memory: bool = True) -> None:
    """Waits until no process (and no region) of the server is left; fails after ten seconds."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if not processes_of(supervisor) and not (shared_memory and shared_memory_of(supervisor)):
            return
        time.sleep(0.05)
    raise AssertionError(f"left over: {processes_of(supervisor)} {shared_memory_of(supervisor)}")


def _commands() -> dict[int, str]:
    commands = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if command:  # a zombie has none
                commands[int(folder.name)] = command
    return commands


def _parent(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None
