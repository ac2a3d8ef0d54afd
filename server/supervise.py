"""Supervisor that runs `tritonserver` and cleans up after it, even if the calling process is killed.

    python -I -S supervise.py PARENT_PID EXIT_TIMEOUT_S COMMAND...

It is a process between the caller and Triton, because a caller killed with SIGKILL cannot clean up:

    caller ── supervise ── tritonserver ── one stub per model instance

It stops Triton on SIGTERM or SIGINT, or when the caller has exited for any reason. Then it kills the remaining
processes of Triton's process group and removes Triton's shared memory. If the supervisor itself is killed, the
kernel's parent-death signal kills Triton, the stubs exit on their own, and the next start removes the shared memory.

Uses only the standard library and no other module of the package, so that it starts isolated in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
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
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


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
    libc = ctypes.CDLL(None, use_errno=True)
    # orphaned stubs become children of this process, which can then wait for their exit
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS | {signal.SIGCHLD})

    def prepare_child() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    remove_stale_shared_memory()
    command = [*command, f"--backend-config=python,shm-region-prefix-name={prefix}"]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=prepare_child)
    try:
        return _wait(child, parent_pid, exit_timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        _reap(time.monotonic() + _REAP_S)
        remove_shared_memory(prefix)


def _wait(child: subprocess.Popen[bytes], parent_pid: int, exit_timeout_s: float) -> int:
    """Wait until `child` exits; terminate it on a stop signal, and kill it `exit_timeout_s` later."""
    deadline: float | None = None
    while (status := child.poll()) is None:
        received = signal.sigtimedwait(_STOP_SIGNALS | {signal.SIGCHLD}, _POLL_S)
        stop_requested = received is not None and received.si_signo in _STOP_SIGNALS
        if deadline is None and (stop_requested or os.getppid() != parent_pid):
            child.terminate()
            deadline = time.monotonic() + exit_timeout_s
        elif deadline is not None and time.monotonic() > deadline:
            child.kill()
    return status if status >= 0 else 128 - status


def _reap(deadline: float) -> None:
    """Wait until no descendant is left, at most until `deadline`."""
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[3:], parent_pid=int(sys.argv[1]), exit_timeout_s=float(sys.argv[2])))
