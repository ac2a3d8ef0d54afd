"""Checkpoints in several files of which one is missing, incomplete or shorter than it should be."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from peft_adapters import write_adapter
from safetensors.torch import load_file, save_file
from tiny_checkpoint import TinyCheckpoint, write_checkpoint, write_json

from qwen3_triton.export import (
    AdapterReference,
    ExportOptions,
    FuseOptions,
    MergeOptions,
    SourceError,
    SourceReference,
    WeightedCheckpoint,
    export_model,
    open_checkpoint,
    write_fused_checkpoint,
    write_merged_checkpoint,
)
from qwen3_triton.export.sources.shard_index import INDEX_FILE

SHARD = "model-00002-of-00003.safetensors"
TENSOR = "norm.weight"

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # from transformers, about a name that PEFT uses


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny", TinyCheckpoint(shards=3))


def remove_shard(source: Path) -> str:
    (source / SHARD).unlink()
    return f"{source / INDEX_FILE}: names {SHARD}, which is not there; is the download complete?"


def remove_tensor(source: Path) -> str:
    file = source / json.loads((source / INDEX_FILE).read_text())["weight_map"][TENSOR]
    save_file({name: values for name, values in load_file(file).items() if name != TENSOR}, file)
    return f"{source / INDEX_FILE}: names {TENSOR} of {file.name}, which is not there; is the download complete?"


def truncate_shard(source: Path) -> str:
    os.truncate(source / SHARD, (source / SHARD).stat().st_size - 100)
    return f"{source / SHARD}: not readable as safetensors ("


def truncate_header(source: Path) -> str:
    os.truncate(source / SHARD, 100)
    return f"{source / SHARD}: not readable as safetensors ("


def empty_shard(source: Path) -> str:
    os.truncate(source / SHARD, 0)
    return f"{source / SHARD}: not readable as safetensors ("


def truncate_index(source: Path) -> str:
    os.truncate(source / INDEX_FILE, 100)
    return f"{source / INDEX_FILE}: not readable as JSON ("


def list_shards(source: Path) -> str:
    write_json(source / INDEX_FILE, {"weight_map": [SHARD]})
    return f"{source / INDEX_FILE}: has no weight_map from tensors to files"


DAMAGES = [remove_shard, remove_tensor, truncate_shard, truncate_header, empty_shard, truncate_index, list_shards]


def export(source: Path, output: Path) -> None:
    export_model(ExportOptions(model=SourceReference(str(source)), repository=output, max_tokens=16))


def merge(source: Path, output: Path) -> None:
    adapter = output.parent / "adapter"
    write_merged_checkpoint(
        MergeOptions(
            model=SourceReference(str(source)),
            adapters=(AdapterReference(SourceReference(str(adapter))),),
            output=output / "merged",
        )
    )


def fuse(source: Path, output: Path) -> None:
    both = tuple(WeightedCheckpoint(SourceReference(str(folder))) for folder in (output.parent / "whole", source))
    write_fused_checkpoint(FuseOptions(checkpoints=both, output=output / "fused"))


@pytest.fixture
def others(tmp_path: Path, tiny_source: Path) -> None:
    """An adapter and another checkpoint, both complete."""
    write_checkpoint(tmp_path / "whole", TinyCheckpoint(seed=4))
    write_adapter(tmp_path / "adapter", tiny_source)


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("damage", DAMAGES)
def test_one_line_names_what_is_missing_and_nothing_is_written(
    source: Path, tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    message = damage(source)
    for write in (export, merge, fuse):
        with pytest.raises(SourceError, match=re.escape(message)) as caught:
            write(source, tmp_path / "out")
        assert len(str(caught.value).splitlines()) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "tiny", "whole"]


def test_a_complete_checkpoint_is_written(source: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "whole", TinyCheckpoint(seed=4))
    fuse(source, tmp_path / "out")
    assert (tmp_path / "out" / "fused" / "model.safetensors").exists()


def test_an_index_beside_a_single_file_has_no_effect(tiny_source: Path, tmp_path: Path) -> None:
    """As in transformers; a tool that joins shards may leave it."""
    source = write_checkpoint(tmp_path / "tiny")
    write_json(source / INDEX_FILE, {"weight_map": {"a": SHARD}})
    opened, whole = (open_checkpoint(SourceReference(str(folder))) for folder in (source, tiny_source))
    assert opened.weights.keys() == whole.weights.keys()
