"""A note names the base that an adapter was trained on, if it seems to be another than the given one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft_adapters import write_adapter
from recorded_notes import Notes
from safetensors.torch import load_file
from tiny_checkpoint import write_checkpoint, write_json, write_weights

from qwen3_triton.export import (
    AdapterReference,
    ExportOptions,
    MergeOptions,
    SourceReference,
    write_merged_checkpoint,
)
from qwen3_triton.export.model_sources import open_sources

HUB_ID = "Qwen/Qwen3-Embedding-0.6B"
CACHE = "hub/models--Qwen--Qwen3-Embedding-0.6B/snapshots/97b0c614be4d77ee51c0cef4e5f07c00f9eb65b3"


class NotesAboutBases(Notes):
    """Records notes, some of which are about other bases."""

    @property
    def about_bases(self) -> list[str]:
        return [note for note in self.notes if "was trained on" in note]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_source: Path) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter") / "lora", tiny_source)


def set_base(adapter: Path, base: str | None, revision: str | None = None) -> None:
    file = adapter / "adapter_config.json"
    write_json(file, json.loads(file.read_text()) | {"base_model_name_or_path": base, "revision": revision})


def notes_of_export(model: Path, adapter: Path, revision: str | None = None) -> tuple[list[str], dict[str, str]]:
    notes = NotesAboutBases()
    options = ExportOptions(
        model=SourceReference(str(model), revision),
        adapters=(AdapterReference(SourceReference(str(adapter))),),
        repository=model.parent / "repository",
    )
    sources = open_sources(options, notes)
    return notes.about_bases, {key: origin for key, origin in sources.origins.items() if key.startswith("base of")}


def link(folder: Path, source: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(source)
    return folder


@pytest.mark.parametrize(
    ("folder", "base"),
    [
        ("Qwen3-Embedding-0.6B", HUB_ID),
        ("Qwen3-Embedding-0.6B", "qwen/qwen3-embedding-0.6b"),
        ("qwen3-embedding-0.6b", f"/home/trainer/models/{HUB_ID}/"),
        ("Qwen3-Embedding-0.6B", "C:\\models\\Qwen3-Embedding-0.6B"),
        (CACHE, HUB_ID),
        ("Qwen3-Embedding-0.6B", f"/root/.cache/{CACHE}"),
        ("anything", "."),
        ("anything", ""),
        ("anything", None),
    ],
)
def test_the_same_name_is_the_same_base(
    tmp_path: Path, tiny_source: Path, adapter: Path, folder: str, base: str | None
) -> None:
    set_base(adapter, base)
    copy = tmp_path / folder
    copy.mkdir(parents=True)
    for file in tiny_source.iterdir():
        link(copy / file.name, file)
    assert notes_of_export(copy, adapter) == ([], {})


@pytest.mark.parametrize("base", ["acme/other", "/home/trainer/checkpoint-500", "x" * 5000, "a\0b", 7])
def test_another_name_is_noted_and_recorded(tiny_source: Path, adapter: Path, base: str) -> None:
    set_base(adapter, base)
    notes, origins = notes_of_export(tiny_source, adapter)
    [note] = notes
    assert note.startswith(f"adapter {adapter} was trained on {str(base)!r} and is merged into {str(tiny_source)!r}: ")
    assert origins == {f"base of adapter {adapter}": str(base)}


def test_merge_notes_another_name(tmp_path: Path, tiny_source: Path, adapter: Path) -> None:
    set_base(adapter, "acme/other")
    notes = NotesAboutBases()
    options = MergeOptions(
        model=SourceReference(str(tiny_source)),
        adapters=(AdapterReference(SourceReference(str(adapter))),),
        output=tmp_path / "merged",
    )
    write_merged_checkpoint(options, notes)
    assert ["'acme/other'" in note for note in notes.about_bases] == [True]


def test_name_in_the_config_counts(tmp_path: Path, adapter: Path) -> None:
    source = write_checkpoint(tmp_path / "copy")
    config = json.loads((source / "config.json").read_text())
    write_json(source / "config.json", config | {"_name_or_path": "acme/base"})
    set_base(adapter, "acme/base")
    assert notes_of_export(source, adapter)[0] == []


def test_weights_decide_if_the_base_is_on_this_machine(tmp_path: Path, adapter: Path) -> None:
    base, same = write_checkpoint(tmp_path / "base"), write_checkpoint(tmp_path / "renamed")
    set_base(adapter, str(base))
    assert notes_of_export(base, adapter)[0] == []
    assert notes_of_export(same, adapter)[0] == []
    tuned = write_checkpoint(tmp_path / "tuned" / "base")
    tensors = load_file(tuned / "model.safetensors")
    write_weights(tuned, tensors | {"norm.weight": torch.ones(40)})
    assert len(notes_of_export(tuned, adapter)[0]) == 1


def test_another_revision_is_noted(tiny_source: Path, adapter: Path) -> None:
    set_base(adapter, f"acme/{tiny_source.name}", "v1")
    assert notes_of_export(tiny_source, adapter, "v1")[0] == []
    assert notes_of_export(tiny_source, adapter)[0] == []
    [note] = notes_of_export(tiny_source, adapter, "v2")[0]
    assert f"'acme/{tiny_source.name}@v1'" in note
