"""Folders that are not what they were given for: the message says what they are and what to give instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft_adapters import write_adapter
from tiny_checkpoint import write_checkpoint, write_json

from qwen3_triton.export import AdapterReference, SourceError, SourceReference, open_checkpoint
from qwen3_triton.export.sources.adapter import open_adapter


def model_error(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        open_checkpoint(SourceReference(str(path)))
    return str(caught.value)


def adapter_error(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        open_adapter(AdapterReference(SourceReference(str(path))))
    return str(caught.value)


@pytest.fixture
def adapter(tmp_path: Path, tiny_source: Path) -> Path:
    return write_adapter(tmp_path / "run" / "checkpoint-500", tiny_source)


def test_adapter_given_as_the_model(adapter: Path, tiny_source: Path) -> None:
    message = model_error(adapter)
    assert f"{adapter} is an adapter of {tiny_source}, not a model" in message
    assert "give the base as the model" in message


def test_folder_of_a_training_run(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoint-1000").mkdir()
    write_json(tmp_path / "run" / "checkpoint-1000" / "adapter_config.json", {})
    for message in (adapter_error(adapter.parent), model_error(adapter.parent)):
        assert "is the folder of a training run" in message
        assert message.index("checkpoint-500") < message.index("checkpoint-1000")


def test_adapter_in_a_named_subfolder(adapter: Path, tmp_path: Path) -> None:
    adapter.rename(tmp_path / "run" / "law")
    assert f"has its adapter in a subfolder; give {tmp_path / 'run' / 'law'}" in adapter_error(tmp_path / "run")


def test_model_given_as_an_adapter(tiny_source: Path) -> None:
    assert f"{tiny_source} is a whole model, not an adapter" in adapter_error(tiny_source)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen3-Embedding-0.6B-Q8_0.gguf", "GGUF"),
        ("model.onnx", "ONNX graph"),
        ("notes.txt", "no config.json; it has notes.txt"),
    ],
)
def test_folder_with_other_files(tmp_path: Path, name: str, expected: str) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / name).write_bytes(b"GGUF")
    assert expected in model_error(folder)
    assert expected.replace("config.json", "adapter_config.json") in adapter_error(folder)


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is empty; is the download complete?" in model_error(tmp_path / "empty")
    assert "is empty; is the download complete?" in adapter_error(tmp_path / "empty")


def test_files_instead_of_folders(tmp_path: Path, adapter: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    assert f"is a file; give the folder that it is in: {source}" in model_error(source / "model.safetensors")
    assert f"is a file; give the folder that it is in: {adapter}" in adapter_error(adapter / "adapter_config.json")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "is a GGUF file of llama.cpp" in model_error(tmp_path / "model.gguf")
