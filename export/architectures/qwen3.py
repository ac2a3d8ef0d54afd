"""Qwen3, which includes Qwen3-Embedding and Qwen3-Reranker: RMSNorm on each query and key head, no biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .architecture import Architecture


def _reject(raw: Mapping[str, Any]) -> str | None:
    return "attention_bias is true; Qwen3 is supported without biases" if raw.get("attention_bias") else None


QWEN3 = Architecture(
    name="Qwen3",
    model_type="qwen3",
    head_norms=True,
    qkv_biases=False,
    default_head_dim=lambda _hidden, _heads: 128,
    reject=_reject,
    official_prompts=True,
)
