"""`qwen3-triton inspect`, and the server's verification: description of a model, and detection of changed files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from peft_adapters import write_adapter
from tiny_checkpoint import TinyCheckpoint, write_checkpoint

import qwen3_triton
from qwen3_triton.client import ExportRecord
from qwen3_triton.client.manifest import ModelFolder
from qwen3_triton.client.manifest.integrity import find_unverified_files
from qwen3_triton.export import AdapterReference, ExportOptions, ServingOptions, SourceReference, export_model
from qwen3_triton.server import ModelFilesError, ServerOptions, start_triton

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # from transformers, about a name that PEFT uses

COMMAND = Path(sys.executable).with_name("qwen3-triton")


def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), "inspect", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    folder = tmp_path_factory.mktemp("inspected")
    source = write_checkpoint(folder / "tiny", TinyCheckpoint())
    adapter = AdapterReference(SourceReference(str(write_adapter(folder / "adapter", source))), 0.5)
    options = ExportOptions(
        model=SourceReference(str(source)),
        adapters=(adapter,),
        repository=folder / "repository",
        name="model",
        max_tokens=48,
        serving=ServingOptions(max_batch_tokens=1000),
    )
    return export_model(options).folder


@pytest.fixture
def folder(pristine: ModelFolder, tmp_path: Path) -> ModelFolder:
    """A copy that a test may damage."""
    shutil.copytree(pristine.path, tmp_path / "repository" / "model")
    return ModelFolder(tmp_path / "repository" / "model")


def test_provenance_names_versions_options_and_every_file(pristine: ModelFolder) -> None:
    record = ExportRecord.from_json(pristine.manifest.read_text(encoding="utf-8"))
    provenance = record.provenance
    assert provenance is not None
    assert provenance.tool_version == qwen3_triton.__version__
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(provenance.created) < timedelta(hours=1)
    assert {"python", "torch", "transformers", "onnxruntime", "onnx-ir"} <= provenance.packages.keys()
    assert provenance.options["max_tokens"] == 48
    assert provenance.options["adapters"] == [f"{record.adapters[0].reference}=0.5"]
    serving = provenance.options["serving"]
    assert isinstance(serving, dict)
    assert serving["max_batch_tokens"] == 1000
    written = {
        str(file.relative_to(pristine.path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in pristine.path.rglob("*")
        if file.is_file() and file not in (pristine.manifest, *pristine.version(1).files)
    }
    assert provenance.files == written
    assert "1/batchstrategy.so" in written


def test_shows_a_model_by_name_and_by_folder(folder: ModelFolder) -> None:
    by_folder = inspect(folder.path)
    assert by_folder.returncode == 0, by_folder.stderr
    assert inspect("model", "--repository", folder.path.parent).stdout == by_folder.stdout
    for text in (
        "embed model, fp32 for cpu",
        "rows of up to 48 tokens",
        "adapter",
        "x 0.5",
        "=0.5: 14 tensors changed, by 0.",
        "  smallest 0.",
        "files       5 checked",
        "parity",
    ):
        assert text in by_folder.stdout


def test_json_is_the_manifest_and_the_check(folder: ModelFolder) -> None:
    printed = json.loads(inspect(folder.path, "--json").stdout)
    assert printed == {"manifest": json.loads(folder.manifest.read_text(encoding="utf-8")), "changed_files": []}


def test_changed_and_missing_files_are_named(folder: ModelFolder) -> None:
    data = folder.graph(1).with_name("model.onnx.data")
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    folder.tokenizer.unlink()
    found = inspect(folder.path, "--json")
    assert found.returncode == 1
    expected = ["1/model.onnx.data has changed", "tokenizer.json is missing"]
    assert json.loads(found.stdout)["changed_files"] == expected
    assert found.stderr.count("\n") == 1
    assert f"error: {folder.path}: {'; '.join(expected)} since the export" in found.stderr


def test_server_verifies_files_before_it_starts(folder: ModelFolder) -> None:
    options = ServerOptions(verify_files=True)
    with start_triton(folder.path.parent, options) as server:
        assert server.models == ("model",)
    folder.config.write_text(folder.config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    folder.graph(1).unlink()
    with pytest.raises(ModelFilesError, match="1 of 1 models") as caught:
        start_triton(folder.path.parent, options)
    assert caught.value.differences == {"model": ["1/model.onnx is missing", "config.pbtxt has changed"]}


def test_model_without_hashes_is_not_verified(folder: ModelFolder) -> None:
    fields = json.loads(folder.manifest.read_text(encoding="utf-8"))
    del fields["provenance"]
    folder.manifest.write_text(json.dumps(fields), encoding="utf-8")
    assert find_unverified_files(folder) == ["manifest.json has no hashes of files"]
    folder.manifest.unlink()
    assert find_unverified_files(folder) == ["manifest.json is missing"]
    folder.manifest.write_text("{}", encoding="utf-8")
    [malformed] = find_unverified_files(folder)
    assert malformed.startswith("manifest.json: ")


def test_additional_files_are_not_an_error(folder: ModelFolder) -> None:
    (folder.path / "notes.txt").write_text("ours")
    assert inspect(folder.path).returncode == 0


def test_manifest_without_provenance_is_shown(folder: ModelFolder) -> None:
    fields = json.loads(folder.manifest.read_text(encoding="utf-8"))
    del fields["provenance"]
    folder.manifest.write_text(json.dumps(fields), encoding="utf-8")
    shown = inspect(folder.path)
    assert shown.returncode == 0
    assert "recorded neither its version nor file hashes" in shown.stdout


def test_manifest_that_is_a_pipe_is_a_one_line_error(folder: ModelFolder) -> None:
    folder.manifest.unlink()
    os.mkfifo(folder.manifest)
    found = inspect(folder.path)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == (f"error: {folder.manifest}: not readable (not a regular file); export the model again\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no exported model 'model'"),
        ("{", "not a qwen3-triton manifest"),
        ('{"schema_version": 2}', "upgrade qwen3-triton"),
        ("[" * 100_000, "nested more than 64 levels deep"),
    ],
)
def test_invalid_model_is_a_one_line_error(folder: ModelFolder, content: str | None, message: str) -> None:
    folder.manifest.unlink()
    if content is not None:
        folder.manifest.write_text(content)
    found = inspect("model", "--repository", folder.path.parent)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.count("\n") == 1
    assert message in found.stderr
