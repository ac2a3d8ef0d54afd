"""Scales of the smoothing from a calibration run, one layer at a time.

A channel's scale is rms(x)^α / rms(W)^(1 − α): SmoothQuant's (arXiv:2211.10438, equation 4), with root mean squares for
the largest values, which do as well with outlier channels and a little better with massive first tokens. α is not
guessed: each site takes the one with which its 8-bit products come closest to the exact ones, or none at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..architectures import EMBEDDINGS, DecoderConfig
from ..passes.smooth import LayerScales, SmoothingPoint, repeat_kv, smooth_weights
from ..sources.checkpoint import Checkpoint
from ..sources.staged_weights import StagedWeights
from ..sources.weights import LazyTensor
from .layer_walk import DecoderLayer, TextBatch, embed_texts, finish_texts, layer_names
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

    weights: dict[str, LazyTensor]
    """The smoothed weights, in the staging file."""
    vectors: torch.Tensor
    """float32 [texts, hidden]: the exact final vectors, which no smoothing changes."""


def choose_smoothing(
    checkpoint: Checkpoint,
    rows: Sequence[Sequence[int]],
    points: Sequence[SmoothingPoint],
    file: Path,
    on_layer: Callable[[int, int], None],
) -> Smoothing:
    """Smooth the weights of `checkpoint` at `points`, from the activations of `rows` of token ids.

    Each weight is computed once: a layer's weights are smoothed while they are in memory, and written to `file`.
    `on_layer` is called with how many of how many layers are done.
    """
    weights, config = checkpoint.weights, checkpoint.config
    with StagedWeights(file, {name: tensor.shape for name, tensor in weights.items()}) as staged:
        table = weights[EMBEDDINGS].fp32()
        staged.write(EMBEDDINGS, table)
        batches = embed_texts(table, rows)
        del table
        stride = -(-sum(map(len, rows)) // _SAMPLE_TOKENS)
        for index in range(config.layers):
            layer = DecoderLayer(checkpoint, index)
            inputs = _watch_layer(layer, batches, stride)
            scales = _choose(layer, inputs, points, config)
            for name, tensor in smooth_weights(layer.weights(), config, {index: scales}).items():
                staged.write(name, tensor.fp32())
            on_layer(index + 1, config.layers)
        for name in weights.keys() - layer_names(config) - {EMBEDDINGS}:
            staged.write(name, weights[name].fp32())
        smoothed = staged.read()
    return Smoothing(weights=smoothed, vectors=finish_texts(checkpoint.with_weights(smoothed), batches))


def _watch_layer(layer: DecoderLayer, batches: list[TextBatch], stride: int) -> dict[ProductGroup, torch.Tensor]:
    """Run the layer on `batches`, in place, and return a sample of what each group of products reads [T, in]."""
    parts = []
    with layer.watched() as seen:
        for place, batch in enumerate(batches):
            batches[place] = layer.run(batch)
            parts.append({group: values[batch.real][::stride] for group, values in seen.items()})
    return {group: torch.cat([part[group] for part in parts]) for group in ProductGroup}


def _choose(
    layer: DecoderLayer,
    inputs: Mapping[ProductGroup, torch.Tensor],
    points: Sequence[SmoothingPoint],
    config: DecoderConfig,
) -> LayerScales:
    chosen = {}
    for point in points:
        group = READERS[point]
        weight = torch.cat([layer.weight(name) for name in layer.tensors(group)])
        scale = _best_scale(inputs[group], weight, config if point is SmoothingPoint.VALUE else None)
        if scale is not None:
            chosen[point] = scale
    return chosen


def _best_scale(inputs: torch.Tensor, weight: torch.Tensor, grouped: DecoderConfig | None) -> torch.Tensor | None:
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
