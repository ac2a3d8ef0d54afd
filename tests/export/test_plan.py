"""A plan has the sizes of the files that an export writes, and an export writes the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forked_exports import tiny_options
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from typer.testing import CliRunner

from qwen3_triton.cli.main import app
from qwen3_triton.client.manifest import Device, Precision
from qwen3_triton.export import (
    ExportOptions,
    ModelExistsError,
    ServingOptions,
    Verification,
    export_model,
    plan_export,
)


def options_for(source: Path, repository: Path, precision: Precision, device: Device) -> ExportOptions:
    serving = ServingOptions(max_batch_tokens=512)
    return tiny_options(
        source, repository, precision=precision, device=device, serving=serving, verify=Verification.NONE
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("precision", "device"),
    [
        (Precision.FP32, Device.CPU),
        (Precision.FP16, Device.CUDA),
        (Precision.BF16, Device.CUDA),
        (Precision.INT8, Device.CPU),
        (Precision.INT8, Device.CUDA),
    ],
)
def test_planned_sizes_are_those_of_the_written_files(tmp_path: Path, precision: Precision, device: Device) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint())
    options = options_for(source, tmp_path / "first", precision, device)
    plan = plan_export(options)
    assert not plan.folder.path.exists()
    first = export_model(options)
    written = files_of(first.folder.path)
    assert plan.version == first.version
    if first.record.quantization is None or not first.record.quantization.fp32_layers:
        assert {file.path: file.bytes for file in plan.files} == {
            path: len(content)
            for path, content in written.items()
            if not path.endswith(("config.pbtxt", "manifest.json"))
        }
    assert plan.disk_bytes == plan.bytes + plan.scratch_bytes
    assert plan.graph_bytes == 0
    with pytest.raises(ModelExistsError):
        plan_export(options)

    again = files_of(export_model(options_for(source, tmp_path / "second", precision, device)).folder.path)
    assert {path for path in written if written[path] != again.get(path)} <= {"manifest.json", "1/manifest.json"}
    records = [json.loads(files["manifest.json"]) for files in (written, again)]
    for record in records:
        del record["provenance"]["created"], record["provenance"]["options"]["repository"]
    assert records[0] == records[1]


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint())
    repository = tmp_path / "repository"
    arguments = ["export", str(source), "--repository", str(repository), "--name", "model", "--dry-run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "1/model.onnx.data" in result.output
    assert "memory: about" in result.output
    assert not repository.exists()
