"""A contender's process, seen from the benchmark."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ..memory import is_short
from ..record import Sample
from ..rows import Rows, Vectors
from ..workers.messages import Done, Failed, Message, Ready, Work, receive, send
from .contender import Bench, CannotRun
from .reasons import public_reason

_ROOT = Path(__file__).resolve().parent.parent.parent
_STOP_S = 20


class Worker:
    """A worker whose process starts when it is needed, and stays while there is memory for all."""

    def __init__(self, module: str, options: Mapping[str, str], python: Path = Path(sys.executable)) -> None:
        self._start = functools.partial(WorkerProcess, module, options, python)
        self._running: WorkerProcess | None = None
        self.versions: Mapping[str, str] = {}
        """Empty before the first start."""

    @classmethod
    def started(cls, bench: Bench, module: str, options: Mapping[str, str], python: Path | None = None) -> Worker:
        """A worker that was seen to start, and rests until it is needed; it ends with the run. Raises CannotRun."""
        worker = cls(module, options, python or Path(sys.executable))
        bench.undo.callback(worker.stop)
        worker._process()
        worker.rest()
        return worker

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """Unit rows float32 [n, hidden] in the callers' order; raises CannotRun."""
        return self._process().ask(Work(rows=rows, batch_rows=batch_rows)).vectors

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """One sample a pass, taken inside the process, whose first pass is no sample; raises CannotRun."""
        if self._running is None:
            self.embed(rows, batch_rows)
        done = self._process().ask(Work(rows=rows, batch_rows=batch_rows, passes=passes))
        return [Sample(wall_s=wall, cpu_s=cpu) for wall, cpu in zip(done.walls_s, done.cpus_s, strict=True)]

    def rest(self) -> None:
        """Ends the process where memory is short; a second time does no harm."""
        if is_short():
            self.stop()

    def stop(self) -> None:
        """Ends the process in any case; a second time does no harm."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _process(self) -> WorkerProcess:
        if self._running is None:
            self._running = self._start()
            self.versions = self._running.versions
        return self._running


class WorkerProcess:
    """One of `benchmarks.workers`, loaded and waiting; raises CannotRun where it does not come up."""

    def __init__(self, module: str, options: Mapping[str, str], python: Path) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [str(python), "-m", f"benchmarks.workers.{module}", json.dumps(dict(options))],
            cwd=_ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        answer = self._receive()
        if not isinstance(answer, Ready):
            self.stop()
            raise CannotRun(_reason(answer))
        self.versions = answer.versions

    def stop(self) -> None:
        """Ends the process; a second time does no harm."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def ask(self, work: Work) -> Done:
        """Its answer; raises CannotRun."""
        try:
            send(_open(self._process.stdin), work)
        except OSError as exc:
            raise CannotRun(self._died()) from exc
        answer = self._receive()
        if isinstance(answer, Done):
            return answer
        raise CannotRun(_reason(answer))

    def _receive(self) -> Message:
        try:
            return receive(_open(self._process.stdout))
        except EOFError:
            return Failed(why=self._died())

    def _died(self) -> str:
        status = self._process.wait(_STOP_S)
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"its process ended with status {status}: {lines[-1] if lines else 'no message'}"


def _open(stream: object) -> BinaryIO:
    assert stream is not None, "the process was started with pipes"
    return stream  # type: ignore[return-value]


def _reason(answer: Message) -> str:
    why = answer.why if isinstance(answer, Failed) else f"answered with {type(answer).__name__}"
    return public_reason(why)
