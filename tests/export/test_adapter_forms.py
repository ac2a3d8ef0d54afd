"""Every form of adapter is merged as PEFT merges it, or rejected by name with a remedy."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    LoraGAConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from peft.tuners.lora.config import CordaConfig
from peft_adapters import load_base, peft_truth, write_adapter
from safetensors.torch import load_file, save_file
from tiny_checkpoint import CAUSAL, TinyCheckpoint, write_checkpoint, write_json
from written_graph import min_cosine, official_vectors, random_rows

from qwen3_triton.client.manifest import ExportRecord
from qwen3_triton.export import (
    AdapterMismatchError,
    AdapterReference,
    ExportOptions,
    MergeOptions,
    SilentProgress,
    SourceError,
    SourceReference,
    TaskChoice,
    UnsupportedCheckpointError,
    export_model,
    write_merged_checkpoint,
)
from qwen3_triton.export.architectures import EMBEDDINGS, LM_HEAD
from qwen3_triton.export.passes.merge_heads import MergedModel, merge_model
from qwen3_triton.export.passes.resized_vocabulary import resize_vocabulary
from qwen3_triton.export.sources.adapter import convert_command, open_adapter
from qwen3_triton.export.sources.adapter_forms import ADAPTER_FORMS, MERGE_FIRST, NOT_WEIGHTS
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.reference import ReferenceModel

# from PEFT about tied embeddings, and from transformers about a name that PEFT uses
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("UserWarning", "FutureWarning")]

ROWS = random_rows([2, 9, 30], vocabulary=290)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """An adapter that PEFT makes, and its base."""

    settings: dict[str, Any] = field(default_factory=dict)
    base: TinyCheckpoint = field(default_factory=TinyCheckpoint)
    vocabulary: int | None = None
    """Resized before training."""
    compares_head: bool = True
    """Not if PEFT merges the embeddings in place, which changes a tied LM head that its unmerged model does not."""

    @property
    def causal(self) -> bool:
        return self.base.layout == CAUSAL


TIED, UNTIED = TinyCheckpoint(layout=CAUSAL), TinyCheckpoint(layout=CAUSAL, tied=False)
QWEN2 = TinyCheckpoint(model_type="qwen2", head_dim=10)
ON_TABLE = {"target_modules": ["embed_tokens", "q_proj"]}
FORMS = {
    "plain": Form(),
    "plain, causal": Form(base=TIED),
    "sharded": Form(base=TinyCheckpoint(layout=CAUSAL, tied=False, shards=3)),
    "rslora": Form(settings={"use_rslora": True}),
    "rank pattern": Form(settings={"rank_pattern": {"q_proj": 6, r"layers\.1\.mlp\.up_proj": 1}}),
    "alpha pattern": Form(settings={"alpha_pattern": {"o_proj": 11, r"layers\.0\.self_attn\.k_proj": 2.5}}),
    "anchored pattern": Form(settings={"alpha_pattern": {r"^model\.layers\.0\.mlp\.up_proj": 9}}, base=TIED),
    "patterns, rslora": Form(
        settings={"rank_pattern": {"v_proj": 5}, "alpha_pattern": {"v_proj": 1}, "use_rslora": True}
    ),
    "one layer by a pattern": Form(settings={"target_modules": r".*layers\.1\..*(q|v|down)_proj"}),
    "one layer": Form(settings={"layers_to_transform": [1], "layers_pattern": "layers"}),
    "dora": Form(settings={"use_dora": True}),
    "dora, rslora, patterns": Form(
        settings={"use_dora": True, "use_rslora": True, "rank_pattern": {"v_proj": 5}, "alpha_pattern": {"q_proj": 1}}
    ),
    "dora on embeddings": Form(settings={"use_dora": True, **ON_TABLE}),
    "dora on the head": Form(settings={"use_dora": True, "target_modules": ["lm_head", "q_proj"]}, base=UNTIED),
    "embeddings": Form(settings=ON_TABLE),
    "embeddings, tied": Form(settings=ON_TABLE, base=TIED, compares_head=False),
    "modules to save": Form(settings={"modules_to_save": ["input_layernorm", "norm", "q_norm"]}),
    "saved embeddings": Form(settings={"modules_to_save": ["embed_tokens"], "target_modules": ["v_proj"]}),
    "saved embeddings and head, tied": Form(settings={"modules_to_save": ["embed_tokens", "lm_head"]}, base=TIED),
    "saved embeddings and head": Form(settings={"modules_to_save": ["embed_tokens", "lm_head"]}, base=UNTIED),
    "biases of qwen3": Form(settings={"bias": "all"}),
    "biases of the modules": Form(settings={"bias": "lora_only", "target_modules": ["q_proj", "o_proj"]}, base=QWEN2),
    "all biases": Form(settings={"bias": "all", "target_modules": ["q_proj", "o_proj"]}, base=QWEN2),
    "bias of B": Form(settings={"lora_bias": True, "target_modules": ["q_proj", "k_proj"]}, base=QWEN2),
    "tokens": Form(settings={"trainable_token_indices": [7, 1, 5]}),
    "tokens, tied": Form(settings={"trainable_token_indices": [7, 1, 5]}, base=TIED),
    "tokens, untied": Form(settings={"trainable_token_indices": [7, 1, 5]}, base=UNTIED),
    "tokens of both tables": Form(
        settings={"trainable_token_indices": {"embed_tokens": [7, 1], "lm_head": [2]}}, base=UNTIED
    ),
    "more tokens": Form(vocabulary=304),
    "more tokens, tied": Form(vocabulary=304, base=TIED),
    "more tokens, untied": Form(vocabulary=304, base=UNTIED),
    "fewer tokens, LoRA on them": Form(vocabulary=290, settings=ON_TABLE),
    "fewer tokens, LoRA on them, tied": Form(vocabulary=290, settings=ON_TABLE, base=TIED, compares_head=False),
    "more tokens, saved": Form(vocabulary=304, settings={"modules_to_save": ["embed_tokens", "lm_head"]}, base=UNTIED),
    "more tokens, trained": Form(vocabulary=304, settings={"trainable_token_indices": [1, 303]}),
    "more tokens, trained, tied": Form(vocabulary=304, settings={"trainable_token_indices": [1, 303]}, base=TIED),
    "gaussian": Form(settings={"init_lora_weights": "gaussian"}),
    "eva": Form(settings={"init_lora_weights": "eva"}),
    "orthogonal": Form(settings={"init_lora_weights": "orthogonal", "r": 4}),
    "mica": Form(settings={"init_lora_weights": "mica"}),
}


def reference(folder: Path, weight: float = 1.0) -> AdapterReference:
    return AdapterReference(SourceReference(str(folder)), weight)


def merge(source: Path, *adapters: AdapterReference) -> MergedModel:
    opened = [open_adapter(adapter) for adapter in adapters]
    return merge_model(resize_vocabulary(open_checkpoint(SourceReference(str(source))), opened), opened)


def make(folder: Path, form: Form, **more: Any) -> tuple[Path, Path]:
    """Write the base and the adapter of `form`."""
    source = write_checkpoint(folder / "base", form.base)
    settings = form.settings | more
    return source, write_adapter(folder / "adapter", source, causal=form.causal, vocabulary=form.vocabulary, **settings)


def assert_equal(merged: MergedModel, truth: dict[str, torch.Tensor]) -> None:
    for name, tensor in truth.items():
        found = merged.weights[EMBEDDINGS if name == LM_HEAD and merged.tied else name].fp32()
        torch.testing.assert_close(found, tensor, rtol=1e-5, atol=2e-6, msg=f"{name} differs")


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
    vectors = ReferenceModel(base.with_weights(decoder)).embed(ROWS, 3, lambda _done, _total: None).vectors
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A change of the settings of a plain adapter, and what the error says."""

    settings: dict[str, Any]
    message: str
    remedy: str


CONVERT = "path_initial_model_for_weight_conversion"
REFUSALS = {
    "target parameters": Refusal(
        settings={"target_parameters": ["q_proj.weight"]},
        message=r"target_parameters \['q_proj.weight'\]",
        remedy=MERGE_FIRST,
    ),
    "kasa": Refusal(settings={"kasa_config": {"beta": 1}}, message="kasa_config", remedy=MERGE_FIRST),
    "bdlora": Refusal(settings={"use_bdlora": {"nblocks": 2}}, message="use_bdlora", remedy=MERGE_FIRST),
    "qalora": Refusal(settings={"use_qalora": True}, message="use_qalora True", remedy="its base is another model"),
    "replicated layers": Refusal(
        settings={"layer_replication": [[0, 2]]}, message="layer_replication", remedy="its base is another model"
    ),
    "activated": Refusal(
        settings={"alora_invocation_tokens": [1]}, message="alora_invocation_tokens", remedy=NOT_WEIGHTS
    ),
    "arrow": Refusal(settings={"arrow_config": {"top_k": 2}}, message="arrow_config", remedy=NOT_WEIGHTS),
    "unknown": Refusal(settings={"use_newlora": True}, message="use_newlora may change", remedy=MERGE_FIRST),
    "loftq": Refusal(settings={"init_lora_weights": "loftq"}, message="'loftq' is not supported", remedy=MERGE_FIRST),
    "tokens of text": Refusal(
        settings={"trainable_token_indices": ["a"]}, message="trainable_token_indices", remedy="list of different token"
    ),
    **{
        init: Refusal(settings={"init_lora_weights": init}, message=f"init_lora_weights '{init}'", remedy=CONVERT)
        for init in ("pissa", "pissa_niter_16", "olora", "corda", "lora_ga")
    },
    **{
        peft_type: Refusal(settings={"peft_type": peft_type}, message=f"peft_type '{peft_type}'", remedy=form.note)
        for form in ADAPTER_FORMS
        for peft_type in form.peft_types
    },
    "unknown method": Refusal(
        settings={"peft_type": "NEW"}, message="peft_type 'NEW'", remedy="only LORA is supported"
    ),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and a plain adapter, which tests do not change."""
    return make(tmp_path_factory.mktemp("plain"), Form())


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_other_forms_are_rejected_by_name(tmp_path: Path, plain: tuple[Path, Path], refusal: Refusal) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(plain[1], adapter)
    file = adapter / "adapter_config.json"
    write_json(file, json.loads(file.read_text()) | refusal.settings)
    with pytest.raises(UnsupportedCheckpointError, match=refusal.message) as caught:
        open_adapter(reference(adapter))
    assert refusal.remedy in str(caught.value)
    assert str(file) in str(caught.value)


TASK: dict[str, Any] = {"task_type": "CAUSAL_LM"}
SAVED_BY_PEFT = {
    "PROMPT_TUNING": PromptTuningConfig(num_virtual_tokens=3, **TASK),
    "PREFIX_TUNING": PrefixTuningConfig(num_virtual_tokens=3, **TASK),
    "IA3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **TASK),
    "target_parameters": LoraConfig(target_modules=[], target_parameters=["mlp.up_proj.weight"], **TASK),
}


@pytest.mark.parametrize("name", SAVED_BY_PEFT)
def test_other_forms_are_rejected_as_peft_saves_them(tmp_path: Path, name: str) -> None:
    source = write_checkpoint(tmp_path / "base", UNTIED)
    base: Any = load_base(source, causal=True)
    get_peft_model(base, SAVED_BY_PEFT[name]).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(UnsupportedCheckpointError, match=name):
        merge(source, reference(tmp_path / "adapter"))


def test_every_method_of_the_installed_peft_is_listed() -> None:
    from peft import PeftType

    assert {str(kind.value) for kind in PeftType} - {"LORA"} <= {
        name for form in ADAPTER_FORMS for name in form.peft_types
    }


def test_fan_in_fan_out_has_no_effect_as_in_peft(plain: tuple[Path, Path], tmp_path: Path) -> None:
    source, adapter = plain[0], tmp_path / "adapter"
    shutil.copytree(plain[1], adapter)
    file = adapter / "adapter_config.json"
    write_json(file, json.loads(file.read_text()) | {"fan_in_fan_out": True})
    assert_equal(merge(source, reference(adapter)), dict(peft_truth(source, adapter, ROWS[:1]).merged))


def test_bias_of_b_needs_a_bias_in_the_base(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, Form(settings={"lora_bias": True}))
    with pytest.raises(AdapterMismatchError, match=r"lora_B has a bias, but layers\..* of the base has none"):
        merge(source, reference(adapter))


def test_dora_without_a_magnitude_is_rejected(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, Form(settings={"use_dora": True, "target_modules": ["q_proj"]}))
    drop(adapter, "layers.1.self_attn.q_proj.lora_magnitude_vector")
    with pytest.raises(
        AdapterMismatchError, match=r"layers\.1\.self_attn\.q_proj\.lora_A without lora_magnitude_vector"
    ):
        merge(source, reference(adapter))


def test_tokens_without_values_are_rejected(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, FORMS["tokens"])
    drop(adapter, "trainable_tokens_delta")
    with pytest.raises(AdapterMismatchError, match="has trainable_token_indices, but no tensor has their values"):
        merge(source, reference(adapter))


def test_token_beyond_the_vocabulary_is_rejected(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, FORMS["tokens"])
    file = adapter / "adapter_config.json"
    write_json(file, json.loads(file.read_text()) | {"trainable_token_indices": [1, 2, 300]})
    with pytest.raises(AdapterMismatchError, match=r"trains token 300, but embed_tokens\.weight has only 300 rows"):
        merge(source, reference(adapter))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dora_that_was_not_trained_is_rejected(tmp_path: Path, dtype: torch.dtype) -> None:
    """Its magnitudes are the norms of the base, but rounded."""
    source = write_checkpoint(tmp_path / "base")
    adapter = tmp_path / "adapter"
    base: Any = load_base(source)
    get_peft_model(base, LoraConfig(target_modules=["q_proj"], use_dora=True)).save_pretrained(str(adapter))
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(file).items()}, file)
    with pytest.raises(AdapterMismatchError, match="changes nothing: every B·A is zero"):
        merge(source, reference(adapter))


def test_initial_adapter_of_another_rank_is_rejected(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "base")
    write_adapter(tmp_path / "adapter" / "pissa_init", source, r=2)
    adapter = write_adapter(tmp_path / "adapter", source, init_lora_weights="pissa")
    with pytest.raises(AdapterMismatchError, match="is it the initial adapter of this one"):
        merge(source, reference(adapter))


def drop(adapter: Path, ending: str) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if not name.endswith(ending)}, file)


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


def test_two_names_of_one_tensor_are_rejected(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, Form(base=TIED))
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    key = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
    save_file(tensors | {key.removeprefix("base_model.model."): tensors[key].clone()}, file)
    with pytest.raises(UnsupportedCheckpointError, match=r"two tensors are called model\.layers\.0\.mlp\.up_proj"):
        merge(source, reference(adapter))
    save_file(tensors | {key.replace("model.model.model", "model.model"): tensors[key].clone()}, file)
    with pytest.raises(AdapterMismatchError, match="match no tensor"):
        merge(source, reference(adapter))


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


def test_resized_vocabulary_is_merged_alone(tmp_path: Path, plain: tuple[Path, Path]) -> None:
    source, adapter = make(tmp_path, Form(vocabulary=304))
    for adapters in ([reference(adapter, 0.5)], [reference(adapter), reference(plain[1])]):
        with pytest.raises(AdapterMismatchError, match="304 tokens instead of 300; it can only be merged alone"):
            merge(source, *adapters)


def test_pickled_adapter_is_rejected_with_the_command_that_converts_it(
    tmp_path: Path, plain: tuple[Path, Path]
) -> None:
    adapter = tmp_path / "an adapter"
    shutil.copytree(plain[1], adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    # pickled tensors may share memory or be strided, which safetensors does not store
    torch.save({name: tensor.T.contiguous().T for name, tensor in tensors.items()}, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(UnsupportedCheckpointError, match=r"only pickled weights \(adapter_model\.bin\)") as caught:
        open_adapter(reference(adapter))
    command = convert_command(adapter)
    assert str(caught.value).endswith(command)
    # the command says `python`, which need not be on the path here
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(command, shell=True, check=True, timeout=120, env=os.environ | {"PATH": path})
    assert_equal(merge(plain[0], reference(adapter)), dict(peft_truth(*plain, ROWS[:1]).merged))


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


def clear(adapter: Path, ending: str) -> None:
    """Set a tensor to zeros."""
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor * (not name.endswith(ending)) for name, tensor in tensors.items()}, file)


def test_embedding_export_of_an_adapter_on_the_lm_head_alone_is_rejected(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, Form(settings={"target_modules": ["lm_head"]}, base=UNTIED))
    options = ExportOptions(
        model=SourceReference(str(source)),
        adapters=(reference(adapter),),
        repository=tmp_path / "repository",
        task=TaskChoice.EMBED,
    )
    with pytest.raises(AdapterMismatchError, match=r"changes nothing that this model uses, only lm_head\.weight"):
        export_model(options)


def test_merge_names_tensors_whose_change_rounding_removes(tmp_path: Path) -> None:
    source, adapter = make(tmp_path, Form(base=TinyCheckpoint(dtype=torch.bfloat16)))
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.layers.1.mlp.up_proj.lora_B.weight"
    save_file(tensors | {name: tensors[name] * 1e-9}, file)
    notes: list[str] = []

    class Notes(SilentProgress):
        def note(self, text: str) -> None:
            notes.append(text)

    options = MergeOptions(
        model=SourceReference(str(source)), adapters=(reference(adapter),), output=tmp_path / "merged"
    )
    write_merged_checkpoint(options, Notes())
    assert notes == ["rounding to the dtype of the base removes the whole change of layers.1.mlp.up_proj.weight"]


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


def test_weights_and_the_combinations_of_peft(tmp_path: Path) -> None:
    """Weights scale the changes, which is PEFT's `cat`; `linear` multiplies sums of factors, with mixed products."""
    source, first = make(tmp_path, Form(settings={"target_modules": ["q_proj"]}))
    second = write_adapter(tmp_path / "second", source, seed=1, target_modules=["q_proj"], lora_alpha=2)
    name = "layers.0.self_attn.q_proj.weight"
    base = open_checkpoint(SourceReference(str(source))).weights[name].fp32()
    combined = {kind: combine(source, {first: 0.5, second: 0.5}, kind)[name] for kind in ("cat", "linear")}
    merged = merge(source, reference(first, 0.5), reference(second, 0.5)).weights[name].fp32()
    torch.testing.assert_close(merged, combined["cat"], rtol=1e-5, atol=2e-6)
    adapters = [open_adapter(reference(folder)) for folder in (first, second)]
    factors = [(0.5 * adapter.scaling("q_proj")) ** 0.5 for adapter in adapters]
    a, b = (
        [adapter.tensors[name.replace("weight", f"lora_{side}.weight")].fp32() for adapter in adapters] for side in "AB"
    )
    sums = [sum(factor * each for factor, each in zip(factors, side, strict=True)) for side in (a, b)]
    torch.testing.assert_close(base + sums[1] @ sums[0], combined["linear"], rtol=1e-5, atol=2e-6)
    assert (combined["linear"] - merged).abs().max() > 0.01


def combine(source: Path, adapters: dict[Path, float], kind: str) -> dict[str, torch.Tensor]:
    """Return the tensors of PEFT's combination of weighted adapters, merged."""
    first, *others = adapters
    model: Any = PeftModel.from_pretrained(load_base(source), first, adapter_name=first.name)
    for folder in others:
        model.load_adapter(folder, adapter_name=folder.name)
    names, weights = [folder.name for folder in adapters], list(adapters.values())
    model.add_weighted_adapter(names, weights, adapter_name="both", combination_type=kind)
    model.set_adapter("both")
    merged: dict[str, torch.Tensor] = model.merge_and_unload().state_dict()
    return merged


def test_adapters_of_different_forms_add_up_as_in_peft(tmp_path: Path) -> None:
    """With ranks, alphas, modules and weights of their own, one of them rank-stabilized, and a negative weight."""
    source = write_checkpoint(tmp_path / "base")
    settings: list[dict[str, Any]] = [
        {"target_modules": ["q_proj", "up_proj", "embed_tokens"]},
        {"r": 5, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj", "embed_tokens"]},
        {"r": 2, "lora_alpha": 9, "use_rslora": True, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    ]
    folders = [write_adapter(tmp_path / f"a{i}", source, seed=i, **kind) for i, kind in enumerate(settings)]
    adapters = dict(zip(folders, (0.7, -0.4, 1.5), strict=True))
    truth = combine(source, adapters, "cat")
    for order in (folders, folders[::-1]):
        assert_equal(merge(source, *(reference(folder, adapters[folder]) for folder in order)), truth)


def test_adapters_of_different_modules_add_up_as_linear_in_peft(tmp_path: Path) -> None:
    """Where no module has two adapters, `linear` has no mixed products, and is the same sum. Ranks must be equal."""
    source = write_checkpoint(tmp_path / "base")
    settings: list[dict[str, Any]] = [
        {"target_modules": ["q_proj", "up_proj"]},
        {"lora_alpha": 2, "target_modules": ["v_proj"]},
        {"lora_alpha": 9, "use_rslora": True, "target_modules": ["k_proj", "embed_tokens"]},
    ]
    folders = [write_adapter(tmp_path / f"a{i}", source, seed=i, **kind) for i, kind in enumerate(settings)]
    adapters = dict(zip(folders, (0.7, -0.4, 1.5), strict=True))
    truth = combine(source, adapters, "linear")
    assert_equal(merge(source, *(reference(folder, weight) for folder, weight in adapters.items())), truth)
