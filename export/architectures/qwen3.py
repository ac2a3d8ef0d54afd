"""Qwen3, which includes Qwen3-Embedding and Qwen3-Reranker: RMSNorm on each query and key head, no biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .architecture import Architecture
from .transformers_classes import TransformersClasses


def _reject(raw: Mapping[str, Any]) -> str | None:
    return "attention_bias is true; Qwen3 is supported without biases" if raw.get("attention_bias") else None


def _load_classes() -> TransformersClasses:
    from transformers import Qwen3Config, Qwen3Model
    from transformers.models.qwen3 import modeling_qwen3 as modeling

    return TransformersClasses(
        config=Qwen3Config,
        model=Qwen3Model,
        layer=modeling.Qwen3DecoderLayer,
        norm=modeling.Qwen3RMSNorm,
        rotary=modeling.Qwen3RotaryEmbedding,
    )


QWEN3 = Architecture(
    name="Qwen3",
    model_type="qwen3",
    head_norms=True,
    qkv_biases=False,
    default_head_dim=lambda _: 128,
    reject=_reject,
    load_classes=_load_classes,
    official_prompts=True,
)
