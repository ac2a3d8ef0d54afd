"""The memory that a plan predicts, against the peak of the export itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.checkpoint import cached_checkpoint
from benchmarks.model_shape import SHAPES
from qwen3_triton.client.manifest import Device, Precision
from qwen3_triton.export import ExportOptions, ServingOptions, SourceReference, Verification, plan_export

MAX_TOKENS = 256
MOST_PLANNED = 1.4
"""Pages of mapped libraries are in the peak, and their number differs between kernels: 145 to 250 MB of about 700."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "device"),
    [(Precision.BF16, Device.CUDA), (Precision.INT8, Device.CPU)],
    ids=["nothing runs", "layers run"],
)
def test_planned_memory_is_about_the_peak(
    tmp_path: Path, project_root: Path, precision: Precision, device: Device
) -> None:
    checkpoint = cached_checkpoint(SHAPES["0.6b-1-layer"], tmp_path)
    plan = plan_export(
        ExportOptions(
            model=SourceReference(str(checkpoint)),
            repository=tmp_path / "repository",
            name="model",
            precision=precision,
            device=device,
            max_tokens=MAX_TOKENS,
            serving=ServingOptions(max_batch_tokens=4096),
            verify=Verification.NONE,
        )
    )
    calibration = tmp_path / "calibration.txt"
    calibration.write_text("how do I sort a list?\n", encoding="utf-8")
    given = {
        "checkpoint": str(checkpoint),
        "adapters": [],
        "repository": str(tmp_path / "repository"),
        "precision": precision,
        "device": device,
        "max_tokens": MAX_TOKENS,
        "calibration": str(calibration),
    }
    command = [sys.executable, "-m", "benchmarks.workers.export_model", json.dumps(given)]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True, check=True)
    peak_mb = json.loads(done.stdout)["peak_mb"]
    assert 0.8 <= plan.memory_bytes / 1e6 / peak_mb <= MOST_PLANNED
