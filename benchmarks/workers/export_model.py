"""Export a model once in this process: options as JSON on stdin, stages and seconds as JSON on stdout."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from qwen3_triton.client.manifest import Precision
from qwen3_triton.export import (
    AdapterReference,
    Device,
    ExportOptions,
    SourceReference,
    Verification,
    WitnessChoice,
    export_model,
)


class StageClock:
    """The Progress that measures how long each stage takes."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, float]] = []

    def stage(self, name: str) -> None:
        """Start the next stage."""
        self.stages.append((name, time.perf_counter()))

    def step(self, done: int, total: int) -> None:
        """Ignore steps."""

    def note(self, text: str) -> None:
        """Ignore notes."""

    def seconds(self) -> list[tuple[str, float]]:
        """Return the duration of each stage, in order."""
        ends = [started for _, started in self.stages[1:]] + [time.perf_counter()]
        return [(name, end - started) for (name, started), end in zip(self.stages, ends, strict=True)]


def main() -> None:
    """Run the export."""
    given = json.load(sys.stdin)
    clock = StageClock()
    started = time.perf_counter()
    result = export_model(
        ExportOptions(
            model=SourceReference.parse(given["checkpoint"]),
            adapters=tuple(AdapterReference.parse(adapter) for adapter in given["adapters"]),
            repository=Path(given["repository"]),
            name="model",
            precision=Precision(given["precision"]),
            device=Device(given["device"]),
            verify=Verification(given["verify"]),
            witness=WitnessChoice.NONE,
            max_tokens=given["max_tokens"],
        ),
        clock,
    )
    wall_s = time.perf_counter() - started
    json.dump({"wall_s": wall_s, "bytes": result.bytes_written, "stages": clock.seconds()}, sys.stdout)


if __name__ == "__main__":
    main()
