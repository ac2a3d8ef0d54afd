"""Smoothing: channels that stand out are made smaller, and the weights that read them larger by as much.

What a product reads is divided channel by channel by s where it is made, and the columns of its weights are
multiplied by s (SmoothQuant, arXiv:2211.10438). The function is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import torch

from ..sources.weights import LazyTensor, Weights

Change = Callable[[torch.Tensor], torch.Tensor]


class SmoothingPoint(StrEnum):
    """Where a layer can be smoothed: what makes the channels → what reads them."""

    ATTENTION = "first norm's gain → q, k, v"
    """[hidden]"""
    VALUE = "v → o"
    """[kv_width]; the query heads of a group read the same."""
    MLP = "second norm's gain → gate, up"
    """[hidden]"""
    INTERMEDIATE = "up → down"
    """[intermediate]"""


LayerScales = Mapping[SmoothingPoint, torch.Tensor]
"""What the channels of each site are divided by, positive float32; a site that is missing is left alone."""


def smooth_weights(weights: Weights, layers: Mapping[int, LayerScales], head_dim: int) -> dict[str, LazyTensor]:
    """`weights` with the scales of `layers`, index → scales, folded in."""
    smoothed = dict(weights)
    for index, scales in layers.items():
        for site, scale in scales.items():
            for name, change in _changes(site, scale, head_dim).items():
                tensor = f"layers.{index}.{name}.weight"
                smoothed[tensor] = smoothed[tensor].changed(change)
    return smoothed


def repeat_kv(value: torch.Tensor, query_width: int, head_dim: int) -> torch.Tensor:
    """[query_width] from [kv_width]: what each query head reads of its group's values."""
    kv_heads = len(value) // head_dim
    return value.reshape(kv_heads, head_dim).repeat_interleave(query_width // len(value), dim=0).reshape(-1)


def _changes(site: SmoothingPoint, scale: torch.Tensor, head_dim: int) -> Mapping[str, Change]:
    def divide_rows(values: torch.Tensor) -> torch.Tensor:
        return values / (scale if values.dim() == 1 else scale[:, None])

    def multiply_columns(values: torch.Tensor) -> torch.Tensor:
        return values * (repeat_kv(scale, values.shape[1], head_dim) if site is SmoothingPoint.VALUE else scale)

    makes, reads = {
        SmoothingPoint.ATTENTION: ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        SmoothingPoint.VALUE: ("self_attn.v_proj", ("self_attn.o_proj",)),
        SmoothingPoint.MLP: ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        SmoothingPoint.INTERMEDIATE: ("mlp.up_proj", ("mlp.down_proj",)),
    }[site]
    return {makes: divide_rows, **dict.fromkeys(reads, multiply_columns)}
