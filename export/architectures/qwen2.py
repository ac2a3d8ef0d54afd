"""Qwen2 and Qwen2.5: biases on the query, key and value projections, no norms on heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .architecture import Architecture


def _default_head_dim(raw: Mapping[str, Any]) -> int:
    return int(raw["hidden_size"]) // int(raw["num_attention_heads"])


QWEN2 = Architecture(
    name="Qwen2",
    model_type="qwen2",
    head_norms=False,
    qkv_biases=True,
    default_head_dim=_default_head_dim,
    reject=lambda _: None,
    official_prompts=False,
)
