"""Time and memory of exports without verification, beside `cp` of the same bytes on the same disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contenders import RunContext
from .environment import load_average
from .model_shape import SHAPES, ModelShape
from .process_memory import allocated_mb
from .record import ExportCost, ExportStage
from .sharded_checkpoint import cached_adapter, cached_sharded_checkpoint

_SAMPLE_S = 0.02
_MAX_TOKENS = 512
_FORWARD_STAGES = (
    "computing the reference",
    "smoothing",
    "measuring the int8 error",
    "measuring the error of each product",
)
"""First words of the stages that run forward passes; `smoothing` reads weights as well."""


_CALIBRATION = "how do I sort a list?\nthe capital of the country\nsteps to change a tire\n"
"""Few and short texts, because the time of forward passes is left out of the comparison."""


class ExportFailedError(Exception):
    """The export failed; the message is its last line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCase:
    """One way to export the checkpoint."""

    precision: str
    device: str
    adapter: bool

    @property
    def setting(self) -> str:
        """Name of the case in records."""
        return f"{self.precision} for {self.device}{', one adapter' if self.adapter else ''}"


CASES = (
    ExportCase(precision="fp16", device="cuda", adapter=False),
    ExportCase(precision="fp16", device="cuda", adapter=True),
    ExportCase(precision="bf16", device="cuda", adapter=True),
    ExportCase(precision="int8", device="cuda", adapter=True),
    ExportCase(precision="int8", device="cpu", adapter=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCostOptions:
    """Options of the part."""

    shape: ModelShape = SHAPES["8b-4-layers"]
    cases: Sequence[ExportCase] = CASES

    @classmethod
    def quick(cls, shape: ModelShape) -> ExportCostOptions:
        """Return options for a run of seconds."""
        return cls(shape=shape, cases=CASES[1:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCostResults:
    """Results of the part."""

    exports: tuple[ExportCost, ...]
    not_measured: Mapping[str, str]


def measure_exports(options: ExportCostOptions, context: RunContext) -> ExportCostResults:
    """Export the checkpoint in every case, each between two copies of the checkpoint."""
    checkpoint = cached_sharded_checkpoint(options.shape, context.cache)
    adapter = cached_adapter(options.shape, context.cache)
    found, failed = [], {}
    for case in options.cases:
        context.log(f"export: {case.setting}")
        try:
            found.append(_measure(case, checkpoint, adapter, context.cache))
        except ExportFailedError as exc:
            failed[f"export {case.setting}"] = str(exc)
    return ExportCostResults(exports=tuple(found), not_measured=failed)


def _measure(case: ExportCase, checkpoint: Path, adapter: Path, disk: Path) -> ExportCost:
    loads = [load_average()]
    with tempfile.TemporaryDirectory(dir=disk, prefix=".export-") as scratch:
        copies = [_copy(checkpoint, Path(scratch) / "copy")]
        _drop_cache(checkpoint)
        calibration = Path(scratch) / "calibration.txt"
        calibration.write_text(_CALIBRATION, encoding="utf-8")
        request = {
            "checkpoint": str(checkpoint),
            "adapters": [str(adapter)] if case.adapter else [],
            "repository": str(Path(scratch) / "repository"),
            "precision": case.precision,
            "device": case.device,
            "max_tokens": _MAX_TOKENS,
            "calibration": str(calibration),
        }
        answer, allocated = _export(json.dumps(request))
        copies.append(_copy(checkpoint, Path(scratch) / "copy"))
    loads.append(load_average())
    return ExportCost(
        setting=case.setting,
        checkpoint_bytes=sum(file.stat().st_size for file in checkpoint.iterdir()),
        written_bytes=answer["bytes"],
        copies_s=tuple(copies),
        stages=tuple(
            ExportStage(name=name.replace(str(checkpoint), "the checkpoint"), wall_s=wall_s, forward=_is_forward(name))
            for name, wall_s in answer["stages"]
        ),
        cpu_s=answer["cpu_s"],
        peak_mb=answer["peak_mb"],
        peak_allocated_mb=allocated,
        load_average=(loads[0], loads[1]),
        disk_read_bytes=answer["disk_read_bytes"],
    )


def _is_forward(stage: str) -> bool:
    return stage.startswith(_FORWARD_STAGES)


def _copy(source: Path, target: Path) -> float:
    """Copy a folder with `cp`, delete the copy, and return the time until it was on disk."""
    _drop_cache(source)
    started = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    for file in target.iterdir():
        _flush(file)
    copied_s = time.perf_counter() - started
    shutil.rmtree(target)
    return copied_s


def _drop_cache(folder: Path) -> None:
    for file in folder.iterdir():
        _flush(file, drop=True)


def _flush(file: Path, *, drop: bool = False) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
        if drop:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def _export(request: str) -> tuple[dict[str, Any], float]:
    """Run the worker; return its answer and the largest sample of its allocated memory in MB."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workers.export_model", request], stdout=output, stderr=errors
        )
        allocated = 0.0
        while worker.poll() is None:
            allocated = max(allocated, allocated_mb(worker.pid))
            time.sleep(_SAMPLE_S)
        output.seek(0)
        errors.seek(0)
        if worker.returncode != 0:
            lines = errors.read().strip().splitlines() or [f"exit status {worker.returncode}"]
            raise ExportFailedError(lines[-1])
        return json.load(output), allocated
