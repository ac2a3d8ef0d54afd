"""Smoothing: scale outlier channels of activations down, and the weights that read them up (arXiv:2211.10438).

The weights that produce an activation are divided by s for each channel, and the columns of the weights that read it
are multiplied by s. The function is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import torch

from ..architectures import DecoderConfig, LayerTensors
from ..sources.weights import LazyTensor, Weights

Change = Callable[[torch.Tensor], torch.Tensor]


class SmoothingPoint(StrEnum):
    """Activations of a layer that can be smoothed: weights that produce them → weights that read them."""

    ATTENTION = "attention norm's gain → q, k, v"
    """[hidden]"""
    VALUE = "v → o"
    """[kv_width]; the query heads of a group read the same channels."""
    MLP = "MLP norm's gain → gate, up"
    """[hidden]"""
    INTERMEDIATE = "up → down"
    """[intermediate]"""


LayerScales = Mapping[SmoothingPoint, torch.Tensor]
"""Positive float32 divisors of the channels at each point; missing points are not smoothed."""


def smooth_weights(weights: Weights, config: DecoderConfig, layers: Mapping[int, LayerScales]) -> dict[str, LazyTensor]:
    """Return `weights` with the scales of `layers`, layer index → scales, folded in."""
    smoothed = dict(weights)
    for index, scales in layers.items():
        for point, scale in scales.items():
            for name, change in _changes(config.architecture.layer(index), point, scale, config.head_dim).items():
                smoothed[name] = smoothed[name].changed(change)
    return smoothed


def repeat_kv(value: torch.Tensor, query_width: int, head_dim: int) -> torch.Tensor:
    """Repeat the channels [kv_width] of each key-value head for its query heads: [query_width]."""
    kv_heads = len(value) // head_dim
    return value.reshape(kv_heads, head_dim).repeat_interleave(query_width // len(value), dim=0).reshape(-1)


def _changes(layer: LayerTensors, point: SmoothingPoint, scale: torch.Tensor, head_dim: int) -> Mapping[str, Change]:
    def divide_rows(values: torch.Tensor) -> torch.Tensor:
        return values / (scale if values.dim() == 1 else scale[:, None])

    def multiply_columns(values: torch.Tensor) -> torch.Tensor:
        return values * (repeat_kv(scale, values.shape[1], head_dim) if point is SmoothingPoint.VALUE else scale)

    producers: tuple[str | None, ...]
    readers: tuple[str, ...]
    producers, readers = {
        SmoothingPoint.ATTENTION: ((layer.attention_norm,), layer.qkv),
        SmoothingPoint.VALUE: ((layer.v, layer.v_bias), (layer.output,)),
        SmoothingPoint.MLP: ((layer.mlp_norm,), layer.gate_up),
        SmoothingPoint.INTERMEDIATE: ((layer.up,), (layer.down,)),
    }[point]
    produced = {name: divide_rows for name in producers if name is not None}
    return {**produced, **dict.fromkeys(readers, multiply_columns)}
