"""Supervisor that runs `tritonserver` and cleans up after it, even if the calling process is killed.

    python -I -S supervise.py PARENT_PID EXIT_TIMEOUT_S COMMAND...

It is a process between the caller and Triton, because a caller killed with SIGKILL cannot clean up:

    caller ── supervise ── tritonserver ── one stub per model instance

It stops Triton on SIGTERM or SIGINT, or when the caller has exited for any reason. Then it kills the remaining
processes of Triton's process group and removes Triton's shared memory. If the supervisor itself is killed, the kernel
kills the process group, and the next start removes the shared memory. The stubs cannot be relied on to notice: one that
is computing waits forever for a Triton that no longer runs.

Triton neither replaces a stub that was killed nor becomes unhealthy: every request for the model fails. After
WATCH_SIGNAL, which the caller sends when the models are loaded, the supervisor kills Triton if a stub has died or stays
stopped, and writes the reason to the log.

Uses only the standard library and no other module of the package, so that it starts isolated in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_STEM = "qwen3-triton"
_POLL_S = 0.2
_REAP_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36
_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
WATCH_SIGNAL = signal.SIGUSR1
FAILURE_PREFIX = "qwen3-triton supervisor: "
"""Start of the line in the log that says why the supervisor has killed Triton."""
_DEAD, _STOPPED = "Z", "T"
# consecutive polls; Triton itself reaps the stubs that exit during its shutdown
_PATIENCE = {_DEAD: 3, _STOPPED: 25}
_SEARCH_POLLS = 25
_STATE, _PARENT, _WAIT_STATUS = 0, 1, 49
_NAME_ARGUMENT = 8


def shared_memory_prefix(pid: int) -> str:
    """Return the prefix of the names of all shared-memory regions of the server under supervisor `pid`."""
    # containers may share /dev/shm but have separate process ids
    return f"{_STEM}-{Path('/proc/self/ns/pid').stat().st_ino}-{pid}-"


def remove_shared_memory(prefix: str) -> None:
    """Remove every shared-memory region whose name starts with `prefix`."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            region.unlink()


def remove_stale_shared_memory() -> None:
    """Remove the regions of supervisors that no longer run, except those of other users and containers."""
    stem = shared_memory_prefix(0).removesuffix("0-")
    for region in SHARED_MEMORY.glob(f"{stem}*"):
        pid = region.name.removeprefix(stem).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                region.unlink()


def supervise(command: list[str], *, parent_pid: int, exit_timeout_s: float) -> int:
    """Run `command` until it exits, a stop signal arrives or `parent_pid` has exited; return its exit status."""
    prefix = shared_memory_prefix(os.getpid())
    # orphaned stubs become children of this process, which can then wait for their exit
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS | {signal.SIGCHLD, WATCH_SIGNAL})
    # only this process has the write end: the pipe is closed when it exits, however it exits
    lifeline, _ = os.pipe()

    def prepare_child() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _kill_group_when_closed(lifeline)

    remove_stale_shared_memory()
    command = [*command, f"--backend-config=python,shm-region-prefix-name={prefix}"]
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=prepare_child, pass_fds=[lifeline]
    )
    try:
        return _wait(child, parent_pid, exit_timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        _reap(time.monotonic() + _REAP_S)
        remove_shared_memory(prefix)


def _kill_group_when_closed(read_end: int) -> None:
    """Make the kernel kill the calling process's group when the last write end of the pipe is closed."""
    fcntl.fcntl(read_end, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(read_end, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(read_end, fcntl.F_SETFL, os.O_ASYNC)


def _wait(child: subprocess.Popen[bytes], parent_pid: int, exit_timeout_s: float) -> int:
    """Wait until `child` exits; terminate it on a stop signal, and kill it `exit_timeout_s` later."""
    deadline: float | None = None
    stubs: StubWatch | None = None
    while (status := child.poll()) is None:
        received = signal.sigtimedwait(_STOP_SIGNALS | {signal.SIGCHLD, WATCH_SIGNAL}, _POLL_S)
        number = received.si_signo if received is not None else None
        if deadline is None and (number in _STOP_SIGNALS or os.getppid() != parent_pid):
            child.terminate()
            deadline = time.monotonic() + exit_timeout_s
        elif deadline is not None and time.monotonic() > deadline:
            child.kill()
        elif number == WATCH_SIGNAL:
            stubs = StubWatch(child.pid)
        elif deadline is None and stubs is not None and (failure := stubs.find_failure()):
            # a shutdown would wait for the stub until the exit timeout
            child.kill()
            # on a line of its own, even if Triton was killed while it wrote one
            os.write(1, os.fsencode(f"\n{FAILURE_PREFIX}{failure}\n"))
            stubs = None
    return status if status >= 0 else 128 - status


class StubWatch:
    """The stubs of a `tritonserver`. Triton ends and reaps those of models that it unloads."""

    def __init__(self, triton: int) -> None:
        self._triton = str(triton)
        self._instances = self._find_stubs()
        self._seen = set(self._instances)
        self._polls: dict[int, int] = {}
        self._until_search = _SEARCH_POLLS

    def find_failure(self) -> str | None:
        """Return why a model instance no longer works, or None. To be called once for each poll."""
        self._until_search -= 1
        if self._until_search == 0:
            self._search()
        for pid, instance in self._instances.items():
            fields = _stat(pid)
            patience = _PATIENCE.get(fields[_STATE])
            self._polls[pid] = 0 if patience is None else self._polls.get(pid, 0) + 1
            if patience is not None and self._polls[pid] >= patience:
                return f"the process of {instance} {_what_happened(fields)}"
        return None

    def _search(self) -> None:
        """Find the stubs of models that were loaded later, and forget those that Triton has reaped."""
        found = self._find_stubs()
        # a stub that is seen for the first time may belong to a model that fails to load, which Triton handles itself
        self._instances = {pid: self._instances.get(pid, name) for pid, name in found.items() if pid in self._seen}
        self._seen = set(found)
        self._until_search = _SEARCH_POLLS

    def _find_stubs(self) -> dict[int, str]:
        pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
        return {pid: _instance(pid) for pid in pids if _stat(pid)[_PARENT] == self._triton}


def _what_happened(fields: list[str]) -> str:
    if fields[_STATE] == _STOPPED:
        return f"was stopped by a signal and did not continue within {_PATIENCE[_STOPPED] * _POLL_S:g} s"
    status = int(fields[_WAIT_STATUS])
    if number := os.WTERMSIG(status):
        cause = ", for example because memory ran out" if number == signal.SIGKILL else ""
        return f"was killed by signal {number}{cause}"
    return f"exited with status {os.WEXITSTATUS(status)}"


def _instance(stub: int) -> str:
    """Return the model instance of a stub, which is an argument of its command; a dead process has none."""
    arguments = _read(f"/proc/{stub}/cmdline").split("\0")
    return f"model instance {arguments[_NAME_ARGUMENT]}" if len(arguments) > _NAME_ARGUMENT else "a model instance"


def _stat(pid: int) -> list[str]:
    """Return the fields of `/proc/<pid>/stat` after the command; empty ones if the process does not exist."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split() or [""] * (_WAIT_STATUS + 1)


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.fsdecode(Path(path).read_bytes())
    return ""


def _reap(deadline: float) -> None:
    """Wait until no descendant is left, at most until `deadline`."""
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[3:], parent_pid=int(sys.argv[1]), exit_timeout_s=float(sys.argv[2])))
