"""Qwen2 and Qwen2.5: biases on the query, key and value projections, no norms on heads."""

from __future__ import annotations

from .architecture import Architecture

QWEN2 = Architecture(
    name="Qwen2",
    model_type="qwen2",
    head_norms=False,
    qkv_biases=True,
    default_head_dim=lambda hidden, heads: hidden // heads,
    reject=lambda _: None,
    official_prompts=False,
)
