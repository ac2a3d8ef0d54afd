"""The LoRA merge against PEFT, by tensors and embeddings; mismatched adapters are rejected."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_adapters import peft_truth, write_adapter
from safetensors.torch import load_file, save_file
from tiny_checkpoint import CAUSAL, TinyCheckpoint, write_checkpoint, write_json
from written_graph import min_cosine, model_vectors, random_rows

from qwen3_triton.export import (
    AdapterMismatchError,
    AdapterReference,
    SourceError,
    SourceReference,
    UnsupportedCheckpointError,
)
from qwen3_triton.export.architectures import LM_HEAD
from qwen3_triton.export.passes.merge import merge_adapters
from qwen3_triton.export.sources.adapter import open_adapter
from qwen3_triton.export.sources.checkpoint import Checkpoint, open_checkpoint
from qwen3_triton.export.verification.reference import ReferenceModel

# from PEFT about tied embeddings, and from transformers about a name that PEFT uses
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("UserWarning", "FutureWarning")]

ROWS = random_rows([2, 9, 30])


def open_merged(source: Path, *adapters: AdapterReference) -> Checkpoint:
    checkpoint = open_checkpoint(SourceReference(str(source)))
    merge = merge_adapters(checkpoint.weights, map(open_adapter, adapters))
    return checkpoint.with_merged(merge.weights, merge.reports)


def reference(folder: Path, weight: float = 1.0) -> AdapterReference:
    return AdapterReference(SourceReference(str(folder)), weight)


@pytest.mark.parametrize("adapter_causal", [False, True])
def test_adapter_and_base_may_have_different_layouts(tmp_path: Path, adapter_causal: bool) -> None:
    trained_on = write_checkpoint(tmp_path / "a", TinyCheckpoint(layout=CAUSAL if adapter_causal else "Qwen3Model"))
    merged_into = write_checkpoint(tmp_path / "b", TinyCheckpoint(layout="Qwen3Model" if adapter_causal else CAUSAL))
    adapter = write_adapter(tmp_path / "adapter", trained_on, causal=adapter_causal)
    truth = peft_truth(trained_on, adapter, ROWS[:1], causal=adapter_causal)
    merged = open_merged(merged_into, reference(adapter))
    for name, tensor in truth.merged.items():
        if name == LM_HEAD:
            continue
        torch.testing.assert_close(merged.weights[name].fp32(), tensor, rtol=1e-5, atol=1e-6)


def test_two_weighted_adapters_add_the_changes_of_peft(tmp_path: Path, tiny_source: Path) -> None:
    kinds: list[dict[str, Any]] = [
        {"modules_to_save": ["norm"], "target_modules": ["embed_tokens", "q_proj"]},
        {"modules_to_save": ["norm"], "use_rslora": True, "target_modules": ["embed_tokens", "q_proj", "up_proj"]},
    ]
    weights = [0.7, -0.4]
    base = {name: tensor.fp32() for name, tensor in open_checkpoint(SourceReference(str(tiny_source))).weights.items()}
    expected = {name: tensor.clone() for name, tensor in base.items()}
    references = []
    for number, (kind, weight) in enumerate(zip(kinds, weights, strict=True)):
        folder = write_adapter(tmp_path / str(number), tiny_source, seed=number, **kind)
        truth = peft_truth(tiny_source, folder, ROWS[:1])
        for name in expected:
            expected[name] += weight * (truth.merged[name] - base[name])
        references.append(reference(folder, weight))
    changed = [name for name, tensor in base.items() if not torch.equal(tensor, expected[name])]
    assert {"norm.weight", "embed_tokens.weight", "layers.0.mlp.up_proj.weight"} <= set(changed)
    for order in (references, references[::-1]):
        merged = open_merged(tiny_source, *order)
        for name, tensor in expected.items():
            torch.testing.assert_close(merged.weights[name].fp32(), tensor, rtol=1e-5, atol=2e-6)


def test_weighted_sum_equals_peft(tmp_path: Path, tiny_source: Path) -> None:
    from peft import PeftModel
    from peft_adapters import load_base

    folders = [write_adapter(tmp_path / str(seed), tiny_source, seed=seed) for seed in range(2)]
    model = PeftModel.from_pretrained(load_base(tiny_source), folders[0], adapter_name="a")
    model.load_adapter(folders[1], adapter_name="b")
    # "cat" is exact; "linear" multiplies A of one adapter with B of the other
    model.add_weighted_adapter(["a", "b"], [0.25, 1.5], adapter_name="both", combination_type="cat")
    model.set_adapter("both")
    truth = model_vectors(model.get_base_model(), ROWS)
    merged = open_merged(tiny_source, reference(folders[0], 0.25), reference(folders[1], 1.5))
    vectors = ReferenceModel(merged).embed(ROWS, lambda _done, _total: None, 1).vectors
    assert min_cosine(vectors, truth) >= 0.999999


def test_unchanged_tensors_are_those_of_the_base(tmp_path: Path, tiny_source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source, target_modules=["q_proj"])
    base = open_checkpoint(SourceReference(str(tiny_source)))
    merged = merge_adapters(base.weights, [open_adapter(reference(adapter))]).weights
    changed = {name for name, tensor in merged.items() if tensor is not base.weights[name]}
    assert changed == {f"layers.{index}.self_attn.q_proj.weight" for index in range(2)}


def edit_settings(adapter: Path, **changes: Any) -> None:
    file = adapter / "adapter_config.json"
    write_json(file, json.loads(file.read_text()) | changes)


def edit_tensors(adapter: Path, add: dict[str, torch.Tensor], drop: tuple[str, ...] = ()) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if name not in drop}
    save_file(tensors | add, file)


Q_A = "base_model.model.layers.0.self_attn.q_proj.lora_A.weight"
Q_B = "base_model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("add", "drop", "listed"),
    [
        (["base_model.model.layers.7.self_attn.q_proj.lora_A.weight"], [], "layers.7.self_attn.q_proj.lora_A.weight"),
        (["base_model.model.layers.0.self_attn.qkv.lora_A.weight"], [], "layers.0.self_attn.qkv.lora_A.weight"),
        (["base_model.model.layers.0.mlp.up_proj.lora_magnitude_vector"], [], "lora_magnitude_vector"),
        (["base_model.model.score.weight"], [], "score.weight"),
        (["something_else"], [], "something_else"),
        ([], [Q_B], "layers.0.self_attn.q_proj.lora_A"),
        ([], [Q_A], "layers.0.self_attn.q_proj.lora_B"),
    ],
)
def test_unmatched_keys_are_listed(
    tmp_path: Path, tiny_source: Path, add: list[str], drop: list[str], listed: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    edit_tensors(adapter, {name: torch.ones(3, 40) for name in add}, tuple(drop))
    with pytest.raises(AdapterMismatchError, match=r"1 of its 2[79] keys match no tensor") as caught:
        open_merged(tiny_source, reference(adapter))
    assert listed in str(caught.value)
    assert str(adapter) in str(caught.value)


def test_adapter_without_tensors_is_rejected(tmp_path: Path, tiny_source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    save_file({}, adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterMismatchError, match="has no tensors"):
        open_merged(tiny_source, reference(adapter))


def test_adapter_of_zeros_is_rejected(tmp_path: Path, tiny_source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source, zeros=True)
    with pytest.raises(AdapterMismatchError, match=r"changes nothing: every B·A is zero"):
        open_merged(tiny_source, reference(adapter))


def test_untrained_embedding_adapter_with_its_saved_table_is_rejected(tmp_path: Path, tiny_source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source, zeros=True, target_modules=["embed_tokens"])
    assert "base_model.model.embed_tokens.base_layer.weight" in load_file(adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterMismatchError, match="changes nothing"):
        open_merged(tiny_source, reference(adapter))


@pytest.mark.parametrize("weight", [math.nan, math.inf, 0.0])
def test_weight_that_is_zero_or_not_finite_is_rejected(tmp_path: Path, tiny_source: Path, weight: float) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    with pytest.raises(AdapterMismatchError, match="finite number"):
        open_merged(tiny_source, reference(adapter, weight))


def test_base_of_another_shape_is_named_with_both_shapes(tmp_path: Path, tiny_source: Path) -> None:
    other = write_checkpoint(tmp_path / "other", TinyCheckpoint(hidden=48))
    adapter = write_adapter(tmp_path / "adapter", other, target_modules=["q_proj"])
    wanted = r"base with other shapes: layers\.0\.self_attn\.q_proj\.weight \[64, 48\] instead of \[64, 40\]"
    with pytest.raises(AdapterMismatchError, match=wanted):
        open_merged(tiny_source, reference(adapter))


def test_rank_that_differs_from_the_config_is_rejected(tmp_path: Path, tiny_source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    edit_settings(adapter, r=4)
    with pytest.raises(AdapterMismatchError, match=r"has rank 3, but adapter_config\.json has 4"):
        open_merged(tiny_source, reference(adapter))


def test_adapter_without_files_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is empty; is the download complete"):
        open_adapter(reference(tmp_path))


def test_settings_without_a_rank_are_rejected(tmp_path: Path, tiny_source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    del settings["lora_alpha"]
    write_json(adapter / "adapter_config.json", settings)
    with pytest.raises(UnsupportedCheckpointError, match="'lora_alpha' is missing"):
        open_adapter(reference(adapter))


@pytest.mark.parametrize(
    ("text", "weight", "shown"),
    [
        ("adapters/a", 1.0, "adapters/a"),
        ("adapters/a=0.5", 0.5, "adapters/a=0.5"),
        ("acme/a@v1=-2", -2.0, "acme/a@v1=-2"),
    ],
)
def test_adapter_text_form_round_trips(text: str, weight: float, shown: str) -> None:
    parsed = AdapterReference.parse(text)
    assert parsed.weight == weight
    assert str(parsed) == shown
    assert AdapterReference.parse(shown) == parsed


@pytest.mark.parametrize("text", ["adapters/a=", "adapters/a=half", "adapters/a=1,5"])
def test_adapter_weight_that_is_not_a_number_is_rejected(text: str) -> None:
    with pytest.raises(SourceError, match="is not a number; write DIR or DIR=WEIGHT"):
        AdapterReference.parse(text)


def test_adapter_folder_may_contain_an_equals_sign(tmp_path: Path) -> None:
    folder = tmp_path / "rank=8"
    folder.mkdir()
    assert AdapterReference.parse(str(folder)) == AdapterReference(SourceReference(str(folder)), 1.0)
    assert AdapterReference.parse(f"{folder}=0.5") == AdapterReference(SourceReference(str(folder)), 0.5)
