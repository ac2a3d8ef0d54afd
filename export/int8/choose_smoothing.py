"""Scales of the smoothing from a calibration run, one layer at a time.

A channel's scale is rms(x)^α / rms(W)^(1 − α): SmoothQuant's (arXiv:2211.10438, equation 4), with root mean squares for
the largest values, which do as well with outlier channels and a little better with massive first tokens. α is not
guessed: each site takes the one with which its 8-bit products come closest to the exact ones, or none at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..passes.smooth import LayerScales, SmoothingPoint, repeat_kv
from ..sources.checkpoint import Checkpoint
from ..sources.config import ModelConfig
from .layer_walk import DecoderLayer, embed_texts, finish_texts
from .products import ProductGroup
from .rounding import multiply

ALPHAS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
"""The values of α that are tried."""
READERS = {
    SmoothingPoint.ATTENTION: ProductGroup.QKV,
    SmoothingPoint.VALUE: ProductGroup.OUTPUT,
    SmoothingPoint.MLP: ProductGroup.GATE_UP,
    SmoothingPoint.INTERMEDIATE: ProductGroup.DOWN,
}
"""Which products read what is smoothed."""

_SAMPLE_TOKENS = 2048
_QUIET = 0.1
"""A channel counts at least this share of the median one: calibration may not have met what wakes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """What a calibration run gives."""

    scales: dict[int, LayerScales]
    """By layer."""
    vectors: torch.Tensor
    """float32 [texts, hidden]: the exact final vectors, which no smoothing changes."""


def choose_smoothing(
    checkpoint: Checkpoint,
    rows: Sequence[Sequence[int]],
    sites: Sequence[SmoothingPoint],
    on_layer: Callable[[int, int], None],
) -> Smoothing:
    """The scales of `sites`, from the activations of `rows` of ids; `on_layer` hears how many layers are done."""
    batches = embed_texts(checkpoint.weights["embed_tokens.weight"].fp32(), rows)
    stride = -(-sum(map(len, rows)) // _SAMPLE_TOKENS)
    scales: dict[int, LayerScales] = {}
    for index in range(checkpoint.config.layers):
        layer = DecoderLayer(checkpoint, index)
        with layer.watched() as seen:
            parts = []
            for place, batch in enumerate(batches):
                batches[place] = layer.run(batch)
                parts.append({group: values[batch.real][::stride] for group, values in seen.items()})
        inputs = {group: torch.cat([part[group] for part in parts]) for group in ProductGroup}
        scales[index] = _choose(layer, inputs, sites, checkpoint.config)
        on_layer(index + 1, checkpoint.config.layers)
    return Smoothing(scales=scales, vectors=finish_texts(checkpoint, batches))


def _choose(
    layer: DecoderLayer,
    inputs: Mapping[ProductGroup, torch.Tensor],
    sites: Sequence[SmoothingPoint],
    config: ModelConfig,
) -> LayerScales:
    chosen = {}
    for site in sites:
        group = READERS[site]
        weight = torch.cat([layer.weight(linear) for linear in group.linears])
        scale = _best_scale(inputs[group], weight, config if site is SmoothingPoint.VALUE else None)
        if scale is not None:
            chosen[site] = scale
    return chosen


def _best_scale(inputs: torch.Tensor, weight: torch.Tensor, grouped: ModelConfig | None) -> torch.Tensor | None:
    """The best scale of the channels of `inputs` [T, in], those of a key-value head where `grouped`; None for one."""

    def measure(values: torch.Tensor) -> torch.Tensor:
        squares = values.square().mean(0)
        if grouped is not None:
            squares = squares.reshape(grouped.kv_heads, -1, grouped.head_dim).mean(1).reshape(-1)
        return _awake(squares.sqrt())

    def spread(scale: torch.Tensor) -> torch.Tensor:
        return scale if grouped is None else repeat_kv(scale, grouped.query_width, grouped.head_dim)

    exact = inputs @ weight.T
    activation, column = measure(inputs), measure(weight)
    best, least = None, _error(multiply(inputs, weight), exact)
    for strength in ALPHAS:
        scale = activation**strength / column ** (1 - strength)
        scale = scale / scale.log().mean().exp()
        error = _error(multiply(inputs / spread(scale), weight * spread(scale)), exact)
        if error < least:
            best, least = scale, error
    return best


def _awake(sizes: torch.Tensor) -> torch.Tensor:
    return sizes.clamp_min(max(float(sizes.median()) * _QUIET, 1e-12))


def _error(answer: torch.Tensor, exact: torch.Tensor) -> float:
    """Mean over tokens of the squared relative error."""
    return float(((answer - exact).square().sum(1) / exact.square().sum(1).clamp_min(1e-30)).mean())
