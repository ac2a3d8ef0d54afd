"""Versions of a model in its folder: keeping, listing and switching."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked_exports import tiny_options
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from qwen3_triton.client import ExportRecord
from qwen3_triton.client.manifest import ModelFolder
from qwen3_triton.client.manifest.integrity import find_changed_files
from qwen3_triton.export import ExportError, UnknownVersionError, export_model, switch_version, version_in_use
from qwen3_triton.export.artifacts import versions


def export_again(source: Path, repository: Path, *, keep: int = 2, instruction: str = "find") -> ModelFolder:
    options = tiny_options(source, repository, overwrite=True)
    query = "Instruct: {instruction}\nQuery:{text}"
    return export_model(
        dataclasses.replace(options, keep_versions=keep, query_template=query, instruction=instruction)
    ).folder


def served_versions(folder: ModelFolder) -> list[int]:
    config = text_format.Parse(folder.config.read_text(encoding="utf-8"), triton.ModelConfig())
    return list(config.version_policy.specific.versions)


def inodes(folder: ModelFolder, version: int) -> list[int]:
    graph = folder.graph(version)
    return [file.stat().st_ino for file in (graph, graph.with_name("model.onnx.data"))]


@pytest.fixture
def folder(tiny_source: Path, tmp_path: Path) -> ModelFolder:
    """A model with two versions, whose default instructions differ; version 2 is in use."""
    export_again(tiny_source, tmp_path / "repository", instruction="first")
    return export_again(tiny_source, tmp_path / "repository", instruction="second")


def test_switch_there_and_back(folder: ModelFolder) -> None:
    weights = [inodes(folder, version) for version in (1, 2)]
    for before, version, instruction in ((2, 1, "first"), (1, 2, "second"), (2, 1, "first")):
        assert switch_version(folder, version) == before
        record = ExportRecord.from_json(folder.manifest.read_text())
        assert record.manifest.prompts.default_instruction == instruction
        assert served_versions(folder) == [version]
        assert version_in_use(folder) == version
        assert find_changed_files(folder, record) == []
    assert folder.versions() == [1, 2]
    # weights are neither copied nor lost
    assert [inodes(folder, version) for version in (1, 2)] == weights
    assert [entry.name for entry in folder.path.parent.parent.iterdir()] == ["repository"]


def test_switch_changes_the_time_that_polling_looks_at(folder: ModelFolder) -> None:
    for file in [folder.path, *folder.path.rglob("*")]:
        os.utime(file, (1, 1))
    switch_version(folder, 1)
    assert folder.config.stat().st_mtime > 1


def test_changed_configuration_survives_a_switch(folder: ModelFolder) -> None:
    changed = folder.config.read_text().replace("max_batch_size: 64", "max_batch_size: 7")
    folder.config.write_text(changed)
    switch_version(folder, 1)
    assert "max_batch_size: 64" in folder.config.read_text()
    switch_version(folder, 2)
    assert folder.config.read_text() == changed


def test_exports_keep_the_version_in_use_and_the_newest(folder: ModelFolder, tiny_source: Path, tmp_path: Path) -> None:
    export_again(tiny_source, tmp_path / "repository", keep=3)
    assert folder.versions() == [1, 2, 3]
    switch_version(folder, 1)
    export_again(tiny_source, tmp_path / "repository", keep=3)
    assert folder.versions() == [1, 3, 4]
    assert version_in_use(folder) == 4
    export_again(tiny_source, tmp_path / "repository", keep=1)
    assert folder.versions() == [5]


def test_version_of_an_earlier_release_is_kept(tiny_source: Path, tmp_path: Path) -> None:
    """Earlier releases neither numbered the manifest nor put a description into the version's folder."""
    folder = export_again(tiny_source, tmp_path / "repository", instruction="first")
    for file in folder.version(1).files:
        file.unlink()
    folder.manifest.write_text(folder.manifest.read_text().replace('"model_version": 1', '"model_version": null'))
    export_again(tiny_source, tmp_path / "repository", instruction="second")
    assert switch_version(folder, 1) == 2
    assert ExportRecord.from_json(folder.manifest.read_text()).manifest.prompts.default_instruction == "first"


def test_file_systems_without_hard_links(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted", source, None, target)

    monkeypatch.setattr("os.link", refuse)
    content = folder.graph(1).read_bytes()
    switch_version(folder, 1)
    assert folder.graph(1).read_bytes() == content
    assert version_in_use(folder) == 1


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("model", 7, "has no version 7; it has 1, 2, of which 2 is in use"),
        ("other", 1, "has no exported model"),
    ],
)
def test_unknown_version(folder: ModelFolder, name: str, version: int, message: str) -> None:
    with pytest.raises(UnknownVersionError, match=message):
        switch_version(ModelFolder(folder.path.parent / name), version)


def test_version_without_its_graph_is_not_put_into_use(folder: ModelFolder) -> None:
    folder.graph(1).unlink()
    with pytest.raises(UnknownVersionError, match=r"has no version 1; it has 2, of which 2 is in use"):
        switch_version(folder, 1)


def test_export_notices_a_version_that_appeared_meanwhile(folder: ModelFolder, tmp_path: Path) -> None:
    staged = ModelFolder(tmp_path / "staged")
    with pytest.raises(ExportError, match="got version 2 in the meantime; export again"):
        versions.add_earlier_versions(folder, staged, 2, keep=2)


def test_keep_versions_must_be_positive(tiny_source: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="keep_versions is 0"):
        export_again(tiny_source, tmp_path / "repository", keep=0)


def test_commands(folder: ModelFolder) -> None:
    """`list` and `rollback` need neither torch nor the other packages of the exporter."""
    repository = folder.path.parent
    (repository / "other").mkdir()
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'onnx_ir', 'onnxruntime'): sys.modules[name] = None\n"
        "from qwen3_triton.cli.main import run\n"
        "run()\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)

    listed = run("list", str(repository))
    assert listed.returncode == 0, listed.stderr
    header, first, second, other = listed.stdout.splitlines()
    assert header.split() == ["NAME", "VERSION", "MODEL", "EXPORTED", "SIZE"]
    assert first.split()[:6] == ["model", "1", "embed", "fp32", "for", "cpu"]
    assert second.split()[:2] == ["model", "2*"]
    assert "not a model exported by qwen3-triton" in other
    done = run("rollback", "model", "1", "--repository", str(repository))
    assert done.returncode == 0, done.stderr
    assert "version 1 is in use instead of 2" in done.stdout
    assert "version 1 is in use already" in run("rollback", "model", "1", "--repository", str(repository)).stdout
    failed = run("rollback", "model", "3", "--repository", str(repository))
    assert failed.returncode == 1
    assert "has no version 3; it has 1, 2, of which 1 is in use" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
