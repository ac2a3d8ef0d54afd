"""Adapters that cannot be merged are rejected by name with a remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from merged_adapters import (
    FORMS,
    ROWS,
    TIED,
    UNTIED,
    Form,
    assert_equal,
    drop,
    make,
    merge,
    reference,
)
from peft import (
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from peft_adapters import load_base, peft_truth, write_adapter
from safetensors.torch import load_file, save_file
from tiny_checkpoint import write_checkpoint, write_json

from qwen3_triton.export import (
    AdapterMismatchError,
    ExportOptions,
    SourceReference,
    TaskChoice,
    UnsupportedCheckpointError,
    export_model,
)
from qwen3_triton.export.sources.adapter import open_adapter
from qwen3_triton.export.sources.adapter_forms import ADAPTER_FORMS, MERGE_FIRST, NOT_WEIGHTS
from qwen3_triton.export.sources.weights import convert_command

# from PEFT about tied embeddings, and from transformers about a name that PEFT uses
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("UserWarning", "FutureWarning")]


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


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_other_forms_are_rejected_by_name(tmp_path: Path, plain_adapter: tuple[Path, Path], refusal: Refusal) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(plain_adapter[1], adapter)
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


def test_pickled_adapter_is_rejected_with_the_command_that_converts_it(
    tmp_path: Path, plain_adapter: tuple[Path, Path]
) -> None:
    adapter = tmp_path / "an adapter"
    shutil.copytree(plain_adapter[1], adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    # pickled tensors may share memory or be strided, which safetensors does not store
    torch.save({name: tensor.T.contiguous().T for name, tensor in tensors.items()}, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(UnsupportedCheckpointError, match=r"only pickled weights \(adapter_model\.bin\)") as caught:
        open_adapter(reference(adapter))
    command = convert_command(adapter, "adapter_model.bin", "adapter_model.safetensors")
    assert str(caught.value).endswith(command)
    # the command says `python`, which need not be on the path here
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(command, shell=True, check=True, timeout=120, env=os.environ | {"PATH": path})
    assert_equal(merge(plain_adapter[0], reference(adapter)), dict(peft_truth(*plain_adapter, ROWS[:1]).merged))


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
