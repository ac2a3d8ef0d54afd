"""Adapters that PEFT makes, merged into their bases."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft_adapters import write_adapter
from safetensors.torch import load_file, save_file
from tiny_checkpoint import CAUSAL, TinyCheckpoint, write_checkpoint
from written_graph import random_rows

from qwen3_triton.export import (
    AdapterReference,
    SourceReference,
)
from qwen3_triton.export.architectures import EMBEDDINGS, LM_HEAD
from qwen3_triton.export.passes.merge_heads import MergedModel, merge_model
from qwen3_triton.export.passes.resized_vocabulary import resize_vocabulary
from qwen3_triton.export.sources.adapter import open_adapter
from qwen3_triton.export.sources.checkpoint import open_checkpoint

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


def drop(adapter: Path, ending: str) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if not name.endswith(ending)}, file)


def clear(adapter: Path, ending: str) -> None:
    """Set a tensor to zeros."""
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor * (not name.endswith(ending)) for name, tensor in tensors.items()}, file)
