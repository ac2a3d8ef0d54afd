"""Adapters created by PEFT for tiny checkpoints, and PEFT's merged weights and outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM
from written_graph import Vectors, model_vectors

ATTENTION_AND_MLP = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, slots=True)
class PeftTruth:
    """PEFT's results for one adapter."""

    merged: Mapping[str, torch.Tensor]
    """Tensors of `merge_and_unload`, under the decoder's names."""
    forward: Vectors
    """Embeddings of the unmerged model with its adapter."""


def load_base(source: Path, *, causal: bool = False) -> torch.nn.Module:
    """Load the checkpoint in fp32."""
    kind = AutoModelForCausalLM if causal else AutoModel
    model: torch.nn.Module = kind.from_pretrained(source, dtype=torch.float32)
    return model


def write_adapter(
    folder: Path,
    source: Path,
    *,
    seed: int = 0,
    causal: bool = False,
    zeros: bool = False,
    vocabulary: int | None = None,
    initial: Path | None = None,
    prepare: Callable[[Any], None] | None = None,
    **settings: Any,
) -> Path:
    """Save a new adapter with PEFT, with random values in all its tensors.

    Args:
        folder: Folder of the adapter.
        source: Checkpoint of the base.
        seed: Seed of the values.
        causal: Train the base as a causal LM.
        zeros: Save low-rank tensors of zeros instead.
        vocabulary: Resize the embeddings of the base before training.
        initial: Also save the adapter as it is before training in this folder, and PEFT's conversion to plain LoRA in
            `converted`, beside the adapter.
        prepare: Gets the base before PEFT adds the adapter.
        settings: Fields of LoraConfig.
    """
    fields: dict[str, Any] = {"r": 3, "lora_alpha": 5, "target_modules": ATTENTION_AND_MLP} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base: Any = load_base(source, causal=causal)
        if vocabulary is not None:
            base.resize_token_embeddings(vocabulary)
        if prepare is not None:
            prepare(base)
        model = get_peft_model(base, LoraConfig(**fields))
        if initial is not None:
            _save_initial(model, initial)
        rng = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_" in name or parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=rng) * 0.2
                parameter.data = torch.zeros_like(parameter) if zeros and "lora_" in name else parameter.data + noise
        model.save_pretrained(str(folder))
        if initial is not None:
            converted = folder.with_name("converted")
            model.save_pretrained(str(converted), path_initial_model_for_weight_conversion=str(initial))
    return folder


def _save_initial(model: Any, folder: Path) -> None:
    """Save an untrained adapter as PEFT's documentation says, without the name of its initialization."""
    config = model.peft_config["default"]
    init, config.init_lora_weights = config.init_lora_weights, True
    model.save_pretrained(str(folder))
    config.init_lora_weights = init


def peft_truth(
    source: Path, adapter: Path, rows: Sequence[Sequence[int]], *, causal: bool = False, vocabulary: int | None = None
) -> PeftTruth:
    """Return PEFT's merged tensors and embeddings for a saved adapter."""
    base: Any = load_base(source, causal=causal)
    if vocabulary is not None:
        base.resize_token_embeddings(vocabulary)
    model = PeftModel.from_pretrained(base, adapter)
    forward = model_vectors(base.get_submodule("model") if causal else base, rows)
    merged = model.merge_and_unload().state_dict()
    return PeftTruth({name.removeprefix("model."): tensor.clone() for name, tensor in merged.items()}, forward)
