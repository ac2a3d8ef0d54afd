"""Merged checkpoints load in transformers and equal PEFT's merge."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

import pytest
import torch
from peft_adapters import peft_truth, write_adapter
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_checkpoint import CAUSAL, MODEL, TinyCheckpoint, write_checkpoint, write_json
from transformers import AutoTokenizer, Qwen3ForCausalLM, Qwen3Model
from written_graph import min_cosine, official_vectors, random_rows

from qwen3_triton.export import (
    AdapterMismatchError,
    AdapterReference,
    MergeOptions,
    ModelExistsError,
    SourceReference,
    write_merged_checkpoint,
)
from qwen3_triton.export.artifacts import weight_shards

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # from transformers, about a name that PEFT uses

ROWS = random_rows([1, 8, 40])


def merge(source: Path, adapter: Path, output: Path, *, weight: float = 1.0, overwrite: bool = False) -> Path:
    references = (AdapterReference(SourceReference(str(adapter)), weight),)
    return write_merged_checkpoint(
        MergeOptions(model=SourceReference(str(source)), adapters=references, output=output, overwrite=overwrite)
    ).folder


@pytest.mark.parametrize("causal", [False, True], ids=["model", "causal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_output_loads_in_transformers_and_equals_peft(tmp_path: Path, causal: bool, dtype: torch.dtype) -> None:
    tiny = TinyCheckpoint(layout=CAUSAL if causal else MODEL, tied=not causal, dtype=dtype)
    source = write_checkpoint(tmp_path / "tiny", tiny)
    adapter = write_adapter(tmp_path / "adapter", source, causal=causal)
    truth = peft_truth(source, adapter, ROWS, causal=causal)
    output = merge(source, adapter, tmp_path / "out" / "merged")
    model = (Qwen3ForCausalLM if causal else Qwen3Model).from_pretrained(output, dtype=dtype)
    loaded = {name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()}
    for name, tensor in truth.merged.items():
        assert loaded[name].dtype is dtype
        torch.testing.assert_close(
            loaded[name], tensor.to(dtype), rtol=1e-5 if dtype is torch.float32 else 1e-2, atol=1e-6
        )
    assert min_cosine(official_vectors(output, ROWS), truth.forward) >= (0.999999 if dtype is torch.float32 else 0.999)
    if causal:
        assert torch.equal(loaded["lm_head.weight"], load_file(source / "model.safetensors")["lm_head.weight"])


def test_names_and_dtypes_are_those_of_the_base(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(layout=CAUSAL, dtype=torch.bfloat16, shards=2))
    output = merge(source, write_adapter(tmp_path / "adapter", source, causal=True), tmp_path / "out" / "merged")
    assert not (output / "model.safetensors.index.json").exists()
    before = {
        name: (tensor.dtype, tensor.shape)
        for file in source.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    after = {name: (tensor.dtype, tensor.shape) for name, tensor in load_file(output / "model.safetensors").items()}
    assert after == before
    with safe_open(output / "model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_companion_files_are_copied_without_other_weights(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    write_json(source / "modules.json", [])
    (source / "1_Pooling").mkdir()
    write_json(source / "1_Pooling" / "config.json", {"pooling_mode_lasttoken": True})
    (source / "2_Normalize").mkdir()
    (source / "onnx").mkdir()
    for name in ("pytorch_model.bin", "model.onnx", "onnx/model.onnx", ".hidden", "tiny.gguf"):
        (source / name).write_text("x")
    output = merge(source, write_adapter(tmp_path / "adapter", source), tmp_path / "out" / "merged")
    assert sorted(str(entry.relative_to(output)) for entry in output.rglob("*")) == [
        "1_Pooling",
        "1_Pooling/config.json",
        "2_Normalize",
        "config.json",
        "model.safetensors",
        "modules.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert AutoTokenizer.from_pretrained(output)("the capital")["input_ids"][-1] == 278


def test_large_checkpoint_is_sharded_with_an_index(
    tmp_path: Path, tiny_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    whole = merge(tiny_source, adapter, tmp_path / "out" / "whole")
    monkeypatch.setattr(weight_shards, "SHARD_BYTES", 30_000)
    output = merge(tiny_source, adapter, tmp_path / "out" / "shards")
    files = sorted(file.name for file in output.glob("*.safetensors"))
    index = json.loads((output / "model.safetensors.index.json").read_text())
    assert len(files) > 3
    assert files == [f"model-{number + 1:05d}-of-{len(files):05d}.safetensors" for number in range(len(files))]
    loaded = {name: tensor for file in files for name, tensor in load_file(output / file).items()}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in loaded.values())
    assert index["weight_map"] == {name: file for file in files for name in load_file(output / file)}
    truth = load_file(whole / "model.safetensors")
    assert set(loaded) == set(truth)
    assert all(torch.equal(tensor, truth[name]) for name, tensor in loaded.items())
    largest = max(tensor.nbytes for tensor in truth.values())
    assert all((output / file).stat().st_size < max(30_000, largest) + 8_000 for file in files)
    assert min_cosine(official_vectors(output, ROWS), official_vectors(whole, ROWS)) >= 0.9999999


def test_the_same_merge_writes_the_same_bytes(
    tmp_path: Path, tiny_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_shards, "SHARD_BYTES", 30_000)
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    once, again = (merge(tiny_source, adapter, tmp_path / "out" / name) for name in ("once", "again"))
    names = sorted(entry.name for entry in once.iterdir())
    assert len(names) > 5
    assert filecmp.cmpfiles(once, again, names, shallow=False) == (names, [], [])


def test_existing_output_is_rejected_before_anything_is_read(tmp_path: Path, tiny_source: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "mine").write_text("x")
    with pytest.raises(ModelExistsError, match="out exists; overwrite it"):
        merge(tiny_source, tmp_path / "no-adapter", output)
    assert [entry.name for entry in output.iterdir()] == ["mine"]


def test_overwrite_replaces_the_whole_folder(tmp_path: Path, tiny_source: Path) -> None:
    output = tmp_path / "out" / "merged"
    output.mkdir(parents=True)
    (output / "stale.json").write_text("x")
    merge(tiny_source, write_adapter(tmp_path / "adapter", tiny_source), output, overwrite=True)
    assert not (output / "stale.json").exists()
    assert (output / "model.safetensors").is_file()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "out"]


def test_adapter_that_rounding_removes_is_rejected(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(dtype=torch.bfloat16))
    adapter = write_adapter(tmp_path / "adapter", source)
    with pytest.raises(AdapterMismatchError, match="equal the base after rounding"):
        merge(source, adapter, tmp_path / "out" / "merged", weight=1e-9)
    assert list((tmp_path / "out").iterdir()) == []
