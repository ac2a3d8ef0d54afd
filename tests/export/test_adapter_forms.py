"""Every form of adapter is merged as PEFT merges it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from merged_adapters import (
    FORMS,
    ROWS,
    TIED,
    Form,
    assert_equal,
    clear,
    make,
    merge,
    reference,
)
from peft import (
    LoraGAConfig,
)
from peft.tuners.lora.config import CordaConfig
from peft_adapters import load_base, peft_truth, write_adapter
from recorded_notes import Notes
from safetensors.torch import load_file, save_file
from tiny_checkpoint import TinyCheckpoint, write_checkpoint, write_json
from written_graph import min_cosine, official_vectors

from qwen3_triton.client.manifest import ExportRecord
from qwen3_triton.export import (
    AdapterMismatchError,
    AdapterReference,
    ExportOptions,
    MergeOptions,
    SourceError,
    SourceReference,
    export_model,
    write_merged_checkpoint,
)
from qwen3_triton.export.architectures import EMBEDDINGS, LM_HEAD
from qwen3_triton.export.passes.merge_heads import MergedModel
from qwen3_triton.export.sources.adapter import open_adapter
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.reference import ReferenceModel

# from PEFT about tied embeddings, and from transformers about a name that PEFT uses
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("UserWarning", "FutureWarning")]


def assert_rows_equal_the_whole(merged: MergedModel) -> None:
    for name, tensor in merged.weights.items():
        rows = [tensor.shape[0] - 1, 3, 0]
        torch.testing.assert_close(tensor.fp32_rows(rows), tensor.fp32()[rows], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_equals_peft(tmp_path: Path, form: Form) -> None:
    source, adapter = make(tmp_path, form)
    truth = peft_truth(source, adapter, ROWS, causal=form.causal, vocabulary=form.vocabulary)
    merged = merge(source, reference(adapter))
    assert_equal(merged, {name: truth.merged[name] for name in truth.merged if name != LM_HEAD or form.compares_head})
    assert_rows_equal_the_whole(merged)
    base = open_checkpoint(SourceReference(str(source)))
    if form.vocabulary is not None:
        base = base.with_vocabulary({}, form.vocabulary)
    decoder = {name: merged.weights[name] for name in base.config.tensor_shapes()}
    vectors = ReferenceModel(base.with_weights(decoder)).embed(ROWS, lambda _done, _total: None).vectors
    assert min_cosine(vectors, truth.forward) >= 0.999999
    [report] = merged.reports
    assert report.changed > 0
    assert 0 < report.relative_change < 10


def decompose(base: Any) -> None:
    """Give each module what PEFT's preprocessing for CorDA does, from the weights alone instead of a covariance."""
    for name, module in base.named_modules():
        if name.endswith(("q_proj", "v_proj")):
            rank = 2 if name.endswith("v_proj") else 3
            u, s, v = torch.linalg.svd(module.weight.data, full_matrices=False)
            module.eigens = SimpleNamespace(U_WC=u[:, :rank], S_WC=s[:rank], V_WC=v[:rank].T)


def draw_gradients(base: Any) -> None:
    """Give each module what PEFT's preprocessing for LoRA-GA does, at random."""
    rng = torch.Generator().manual_seed(2)
    for name, module in base.named_modules():
        if name.endswith(("q_proj", "v_proj")):
            module._peft_loraga_grad = torch.randn(module.weight.shape, generator=rng)


MUTATIONS: dict[str, dict[str, Any]] = {
    "pissa": {},
    "pissa_niter_4": {},
    "olora": {},
    "corda": {"corda_config": CordaConfig(), "prepare": decompose},
    "lora_ga": {"lora_ga_config": LoraGAConfig(), "prepare": draw_gradients},
}


@pytest.mark.parametrize("init", MUTATIONS)
@pytest.mark.parametrize(
    ("adapter_name", "initial"), [("adapter", "adapter/pissa_init"), ("checkpoint-20", "initial_model")]
)
def test_adapter_that_began_with_a_part_of_its_base_equals_peft(
    tmp_path: Path, init: str, adapter_name: str, initial: str
) -> None:
    """The truth is the conversion by PEFT, which is plain LoRA."""
    source = write_checkpoint(tmp_path / "base")
    settings: dict[str, Any] = {
        "init_lora_weights": init,
        "rank_pattern": {"v_proj": 2},
        "target_modules": ["q_proj", "v_proj"],
    }
    adapter = write_adapter(tmp_path / adapter_name, source, initial=tmp_path / initial, **settings, **MUTATIONS[init])
    converted = tmp_path / "converted"
    truth = peft_truth(source, converted, ROWS[:1])
    merged = merge(source, reference(adapter))
    for name, tensor in truth.merged.items():
        torch.testing.assert_close(merged.weights[name].fp32(), tensor, rtol=1e-4, atol=1e-5)
    assert open_adapter(reference(adapter)).identity().sha256 != open_adapter(reference(converted)).identity().sha256


def test_fan_in_fan_out_has_no_effect_as_in_peft(plain_adapter: tuple[Path, Path], tmp_path: Path) -> None:
    source, adapter = plain_adapter[0], tmp_path / "adapter"
    shutil.copytree(plain_adapter[1], adapter)
    file = adapter / "adapter_config.json"
    write_json(file, json.loads(file.read_text()) | {"fan_in_fan_out": True})
    assert_equal(merge(source, reference(adapter)), dict(peft_truth(source, adapter, ROWS[:1]).merged))


PREFIXES: dict[str, Callable[[str], str]] = {
    "without PEFT's": lambda key: key.removeprefix("base_model.model."),
    "without model.": lambda key: key.replace("base_model.model.model.", "base_model.model."),
    "of neither": lambda key: key.removeprefix("base_model.model.model."),
    "adapter name": lambda key: key.replace(".weight", ".default.weight"),
    "DataParallel": lambda key: "module." + key,
    "FSDP": lambda key: key.replace(".self_attn.", "._fsdp_wrapped_module.self_attn."),
    "checkpointing": lambda key: key.replace(".mlp.", ".mlp._checkpoint_wrapped_module."),
    "sentence-transformers": lambda key: key.replace("base_model.model.model.", "base_model.model.0.auto_model."),
}


@pytest.mark.parametrize("rename", PREFIXES.values(), ids=PREFIXES.keys())
def test_prefixes_of_keys(tmp_path: Path, rename: Callable[[str], str]) -> None:
    source, adapter = make(tmp_path, Form(base=TIED))
    expected = {name: tensor.fp32() for name, tensor in merge(source, reference(adapter)).weights.items()}
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    assert set(renamed) != set(tensors)
    save_file(renamed, file)
    merged = merge(source, reference(adapter)).weights
    assert all(torch.equal(merged[name].fp32(), tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["plain", "dora", "tokens", "more tokens"])
def test_written_tensors_are_rounded_once(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    form = FORMS[name]
    source, adapter = make(
        tmp_path, Form(settings=form.settings, base=TinyCheckpoint(dtype=dtype), vocabulary=form.vocabulary)
    )
    truth = peft_truth(source, adapter, ROWS[:1], vocabulary=form.vocabulary).merged
    options = MergeOptions(
        model=SourceReference(str(source)), adapters=(reference(adapter),), output=tmp_path / "merged"
    )
    result = write_merged_checkpoint(options)
    written = load_file(result.folder / "model.safetensors")
    assert set(written) == set(truth)
    for key, tensor in written.items():
        rounded = truth[key].to(dtype)
        # fp32 sums in another order may round to the neighbor
        assert (tensor != rounded).float().mean() <= 2e-3
        torch.testing.assert_close(tensor, rounded, rtol=2 * torch.finfo(dtype).eps, atol=1e-7)
    load_base(result.folder)
    assert official_vectors(result.folder, ROWS).shape == (3, form.base.hidden)


def test_resized_vocabulary_is_merged_alone(tmp_path: Path, plain_adapter: tuple[Path, Path]) -> None:
    source, adapter = make(tmp_path, Form(vocabulary=304))
    for adapters in ([reference(adapter, 0.5)], [reference(adapter), reference(plain_adapter[1])]):
        with pytest.raises(AdapterMismatchError, match="304 tokens instead of 300; it can only be merged alone"):
            merge(source, *adapters)


def test_adapter_inside_the_checkpoint_folder(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, Form())
    expected = dict(peft_truth(source, adapter, ROWS[:1]).merged)
    inside = source / "lora"
    adapter.rename(inside)
    assert_equal(merge(source, reference(inside)), expected)


@pytest.mark.parametrize("revision", [None, "main"])
def test_adapter_in_a_subfolder_of_a_hub_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    """The hub's own cache answers offline."""
    from huggingface_hub import constants

    _, adapter = make(tmp_path, Form())
    cached = tmp_path / "hub" / "models--acme--loras"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    folder = cached / "snapshots" / ("0" * 40) / "english" / "v2"
    shutil.copytree(adapter, folder)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = open_adapter(AdapterReference(SourceReference("acme/loras//english/v2", revision)))
    assert found.directory == folder
    with pytest.raises(SourceError, match="acme/loras has no folder french on the hub"):
        open_adapter(AdapterReference(SourceReference("acme/loras//french", revision)))


def test_report_has_the_relative_norms(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, Form(settings={"modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"]}))
    clear(adapter, "layers.1.self_attn.q_proj.lora_B.weight")
    base = open_checkpoint(SourceReference(str(source))).weights
    truth = peft_truth(source, adapter, ROWS[:1]).merged
    names = ["layers.0.self_attn.q_proj.weight", EMBEDDINGS]
    changes = {name: 0.5 * float((truth[name] - base[name].fp32()).norm()) for name in names}
    norms = {name: float(base[name].fp32().norm()) for name in names}
    [report] = merge(source, reference(adapter, 0.5)).reports
    assert (report.adapter, report.changed, report.unchanged) == (f"{adapter}=0.5", 2, 1)
    assert report.relative_change == pytest.approx(
        math.hypot(*changes.values()) / math.hypot(*norms.values()), rel=1e-4
    )
    assert (report.smallest, report.smallest_tensor) == (0.0, "layers.1.self_attn.q_proj.weight")
    relative = {name: changes[name] / norms[name] for name in names}
    assert report.largest_tensor == max(relative, key=lambda name: relative[name])
    assert report.largest == pytest.approx(max(relative.values()), rel=1e-4)


def test_merge_names_tensors_whose_change_rounding_removes(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, Form(base=TinyCheckpoint(dtype=torch.bfloat16)))
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.layers.1.mlp.up_proj.lora_B.weight"
    save_file(tensors | {name: tensors[name] * 1e-9}, file)

    options = MergeOptions(
        model=SourceReference(str(source)), adapters=(reference(adapter),), output=tmp_path / "merged"
    )
    notes = Notes()
    write_merged_checkpoint(options, notes)
    assert notes.notes == ["rounding to the dtype of the base removes the whole change of layers.1.mlp.up_proj.weight"]


def test_vocabulary_is_resized_in_an_export(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, Form(vocabulary=304, settings={"trainable_token_indices": [1, 303]}))
    result = export_model(
        ExportOptions(
            model=SourceReference(str(source)),
            adapters=(reference(adapter),),
            repository=tmp_path / "repository",
            max_tokens=32,
        )
    )
    assert result.record.manifest.vocabulary_size == 304
    assert result.record.parity is not None
    assert result.record.parity.passed
    assert ExportRecord.from_json(result.record.to_json()).merges == result.record.merges
