"""Exports, merges and fusions in separate processes that can be killed.

Importing torch and transformers takes longer than a tiny export, so one process imports them and forks. This file, run
as a script, is that process; it reads jobs from stdin as JSON lines.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3_triton.export import (
    AdapterReference,
    ExportOptions,
    FuseOptions,
    MergeOptions,
    SilentProgress,
    SourceReference,
    WeightedCheckpoint,
    export_model,
    write_fused_checkpoint,
    write_merged_checkpoint,
)
from qwen3_triton.export.artifacts import staging


def tiny_options(source: Path, repository: Path, *, name: str = "model", **options: Any) -> ExportOptions:
    """Return options of an export that takes a fraction of a second."""
    return ExportOptions(model=SourceReference(str(source)), repository=repository, name=name, max_tokens=48, **options)


@dataclass(frozen=True, slots=True)
class ExportForks:
    """The process that forks exports."""

    process: subprocess.Popen[str]

    @classmethod
    def open(cls) -> ExportForks:
        """Start the process."""
        command = [sys.executable, __file__]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        return cls(process)

    def close(self) -> None:
        """Stop the process."""
        self.process.communicate(timeout=30)

    def start(
        self,
        source: Path,
        repository: Path,
        *,
        name: str = "model",
        overwrite: bool = False,
        die_at: int = -1,
        die_after: str = "",
        adapter: Path | None = None,
        other: Path | None = None,
    ) -> int:
        """Start an export, or with `adapter` a merge, or with `other` a fusion, and return its process id.

        It kills itself at call number `die_at` of its progress, or after the function `die_after` of the staging
        module.
        """
        job = {"source": str(source), "repository": str(repository), "name": name, "overwrite": overwrite}
        inputs = {"adapter": str(adapter or ""), "other": str(other or "")}
        return self._request(job | inputs | {"die_at": die_at, "die_after": die_after})

    def join(self, pid: int) -> int:
        """Wait for an export and return its exit status, or minus the number of the signal that killed it."""
        return self._request({"join": pid})

    def _request(self, job: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


class _Fuse(SilentProgress):
    """Kills the process at the given call, counted from 0."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def stage(self, text: str) -> None:  # noqa: ARG002
        self._burn()

    def step(self, done: int, total: int) -> None:  # noqa: ARG002
        self._burn()

    def _burn(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def _kill_after(function: str) -> None:
    original: Callable[..., None] = getattr(staging, function)

    def call_and_kill(*arguments: object, **options: object) -> None:
        original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(staging, function, call_and_kill)


def _serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        if "join" in job:
            _, status = os.waitpid(job["join"], 0)
            reply = os.waitstatus_to_exitcode(status)
        else:
            reply = os.fork()
            if reply == 0:
                os._exit(_export(job))
        sys.stdout.write(f"{reply}\n")
        sys.stdout.flush()


def _export(job: dict[str, Any]) -> int:
    if job["die_after"]:
        _kill_after(job["die_after"])
    try:
        _write(job, _Fuse(job["die_at"]))
    except Exception as error:  # noqa: BLE001 - reported by the exit status
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _write(job: dict[str, Any], progress: SilentProgress) -> None:
    source, output, overwrite = Path(job["source"]), Path(job["repository"]) / job["name"], bool(job["overwrite"])
    if job["adapter"]:
        adapters = (AdapterReference(SourceReference(job["adapter"])),)
        model = SourceReference(str(source))
        write_merged_checkpoint(
            MergeOptions(model=model, adapters=adapters, output=output, overwrite=overwrite), progress
        )
    elif job["other"]:
        checkpoints = tuple(WeightedCheckpoint(SourceReference(str(folder))) for folder in (source, job["other"]))
        write_fused_checkpoint(FuseOptions(checkpoints=checkpoints, output=output, overwrite=overwrite), progress)
    else:
        export_model(tiny_options(source, output.parent, name=output.name, overwrite=overwrite), progress)


if __name__ == "__main__":
    _serve()
