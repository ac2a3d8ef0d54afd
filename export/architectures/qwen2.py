"""Qwen2 and Qwen2.5: biases on the query, key and value projections, no norms on heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .architecture import Architecture
from .transformers_classes import TransformersClasses


def _default_head_dim(raw: Mapping[str, Any]) -> int:
    return int(raw["hidden_size"]) // int(raw["num_attention_heads"])


def _load_classes() -> TransformersClasses:
    from transformers import Qwen2Config, Qwen2Model
    from transformers.models.qwen2 import modeling_qwen2 as modeling

    return TransformersClasses(
        config=Qwen2Config,
        model=Qwen2Model,
        layer=modeling.Qwen2DecoderLayer,
        norm=modeling.Qwen2RMSNorm,
        rotary=modeling.Qwen2RotaryEmbedding,
    )


QWEN2 = Architecture(
    name="Qwen2",
    model_type="qwen2",
    head_norms=False,
    qkv_biases=True,
    default_head_dim=_default_head_dim,
    reject=lambda _: None,
    load_classes=_load_classes,
    official_prompts=False,
)
