"""Exports a model once, without verification, and prints time and memory as JSON; options are a JSON argument."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from qwen3_triton.client.manifest import Device, Precision, Verification
from qwen3_triton.export import (
    AdapterReference,
    ExportOptions,
    Int8Options,
    ServingOptions,
    SilentProgress,
    SourceReference,
    export_model,
)
from qwen3_triton.export.formats import weight_format

from ..process_memory import peak_mb

_BATCH_TOKENS = 4096
"""Given, because measuring it runs the whole model."""


class StageClock(SilentProgress):
    """The progress of an export, which measures how long each stage takes."""

    def __init__(self) -> None:
        self._stages: list[tuple[str, float]] = []

    def stage(self, text: str) -> None:
        """Start the next stage."""
        self._stages.append((text, time.perf_counter()))

    def durations(self) -> list[tuple[str, float]]:
        """Return name and seconds of each stage; the last one ends now."""
        ends = [*(started for _, started in self._stages[1:]), time.perf_counter()]
        return [(name, end - started) for (name, started), end in zip(self._stages, ends, strict=True)]


def disk_read_bytes() -> int:
    """Return the bytes that this process has read from disk, without those that were in the page cache."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["read_bytes"])


def main() -> None:
    """Export and print the result."""
    given = json.loads(sys.argv[1])
    clock = StageClock()
    precision, device = Precision(given["precision"]), Device(given["device"])
    calibrates = weight_format(precision, device).needs_calibration
    options = ExportOptions(
        model=SourceReference(given["checkpoint"]),
        adapters=tuple(AdapterReference(SourceReference(folder)) for folder in given["adapters"]),
        repository=Path(given["repository"]),
        name="model",
        precision=precision,
        device=device,
        max_tokens=given["max_tokens"],
        int8=Int8Options(calibration=Path(given["calibration"])) if calibrates else Int8Options(),
        serving=ServingOptions(max_batch_tokens=_BATCH_TOKENS),
        verify=Verification.NONE,
    )
    result = export_model(options, clock)
    used = resource.getrusage(resource.RUSAGE_SELF)
    answer = {
        "bytes": result.bytes_written,
        "stages": clock.durations(),
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": peak_mb(os.getpid()),
        "disk_read_bytes": disk_read_bytes(),
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
