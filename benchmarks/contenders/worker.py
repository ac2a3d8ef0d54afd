"""Worker processes of contenders, controlled by the benchmark."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, TypeVar

from ..memory import is_memory_short
from ..record import Sample
from ..rows import Rows, Vectors
from ..workers.messages import Failure, Message, Ready, WorkRequest, WorkResult, receive, send
from .contender import ContenderUnavailableError, RunContext
from .layout import Layout
from .reasons import public_reason

ResultT = TypeVar("ResultT")

_ROOT = Path(__file__).resolve().parent.parent.parent
_STOP_S = 20
_VARIABLES = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
_PINNED_OPENMP = {"OMP_PROC_BIND": "spread", "OMP_PLACES": "threads"}
"""Pins the threads of programs that use OpenMP, each to a core of its own while there are enough."""


class Worker:
    """An engine in a process that is started on demand and stopped when memory is short."""

    def __init__(self, module: str, options: Mapping[str, str], python: Path = Path(sys.executable)) -> None:
        self._start = functools.partial(WorkerProcess, module, options, python)
        # a process may be unusable after an error in a kernel
        self._stops_after_failure = options.get("device") == "cuda"
        self._running: WorkerProcess | None = None
        self.versions: Mapping[str, str] = {}
        """Versions of the relevant packages; empty before the first start."""

    @classmethod
    def started(
        cls, context: RunContext, module: str, options: Mapping[str, str], python: Path | None = None
    ) -> Worker:
        """Return a worker after checking that it starts; `context.cleanup` stops it.

        Raises:
            ContenderUnavailableError: if it does not start.
        """
        worker = cls.on_demand(context, module, options, python)
        worker._process()
        worker.release_memory()
        return worker

    @classmethod
    def on_demand(
        cls, context: RunContext, module: str, options: Mapping[str, str], python: Path | None = None
    ) -> Worker:
        """Return a worker that starts when it is first used; `context.cleanup` stops it."""
        worker = cls(module, options, python or Path(sys.executable))
        context.cleanup.callback(worker.stop)
        return worker

    @classmethod
    def in_layouts(
        cls, context: RunContext, module: str, options: Mapping[str, str], python: Path | None = None
    ) -> Callable[[Layout], Worker]:
        """Return a function that returns the worker on demand in a layout."""
        return lambda layout: cls.on_demand(context, module, {**options, **layout.options()}, python)

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """Embed or score `rows`; see `Engine.embed`."""
        return self._request(WorkRequest(rows=rows, batch_rows=batch_rows)).vectors

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """Return one sample per pass, measured inside the process after a warm-up; see `Engine.time`."""
        if self._running is None:
            self.embed(rows, batch_rows)
        done = self._request(WorkRequest(rows=rows, batch_rows=batch_rows, passes=passes))
        return [Sample(wall_s=wall, cpu_s=cpu) for wall, cpu in zip(done.walls_s, done.cpus_s, strict=True)]

    def release_memory(self) -> None:
        """Stop the process if memory is short. Idempotent."""
        if is_memory_short():
            self.stop()

    def stop(self) -> None:
        """Stop the process. Idempotent."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _request(self, work: WorkRequest) -> WorkResult:
        process = self._process()
        try:
            return process.request(work)
        except ContenderUnavailableError:
            if self._stops_after_failure or process.has_exited:
                self.stop()
            raise

    def _process(self) -> WorkerProcess:
        if self._running is None:
            self._running = self._start()
            self.versions = self._running.versions
        return self._running


class WorkerProcess:
    """A running process of one of the modules in `benchmarks.workers`."""

    def __init__(self, module: str, options: Mapping[str, str], python: Path) -> None:
        """Start the process and wait until its program is loaded.

        Raises:
            ContenderUnavailableError: if it does not start.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._process = subprocess.Popen(
            [str(python), "-m", f"benchmarks.workers.{module}", json.dumps(dict(options))],
            cwd=_ROOT,
            env={**os.environ, **_VARIABLES, **(_PINNED_OPENMP if options.get("pinned") == "yes" else {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        message = self._receive()
        if not isinstance(message, Ready):
            self.stop()
            raise ContenderUnavailableError(_failure_reason(message))
        self.versions = message.versions

    @property
    def has_exited(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Stop the process. Idempotent."""
        for stream in (self._process.stdin, self._process.stdout):
            # a process that exited may have left a request unread
            with contextlib.suppress(OSError):
                _open(stream).close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def request(self, work: WorkRequest) -> WorkResult:
        """Send `work` and wait for its result; see `exchange`."""
        return self.exchange(work, WorkResult)

    def exchange(self, request: Message, expected: type[ResultT]) -> ResultT:
        """Send a request and wait for its result, of the type `expected`.

        Raises:
            ContenderUnavailableError: if the request fails or the process dies.
        """
        try:
            send(_open(self._process.stdin), request)
        except OSError as exc:
            raise ContenderUnavailableError(self._exit_reason()) from exc
        message = self._receive()
        if isinstance(message, expected):
            return message
        raise ContenderUnavailableError(_failure_reason(message))

    def _receive(self) -> Message:
        try:
            return receive(_open(self._process.stdout))
        except EOFError:
            return Failure(reason=self._exit_reason())

    def _exit_reason(self) -> str:
        status = self._process.wait(_STOP_S)
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"its process exited with status {status}: {lines[-1] if lines else 'no message'}"


def _open(stream: object) -> BinaryIO:
    assert stream is not None, "the process was started with pipes"
    return stream  # type: ignore[return-value]


def _failure_reason(message: Message) -> str:
    reason = message.reason if isinstance(message, Failure) else f"unexpected message {type(message).__name__}"
    return public_reason(reason)
