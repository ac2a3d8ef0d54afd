"""Choice of smoothing scales from a calibration run, one layer at a time.

The scale of a channel is rms(x)^α / rms(W)^(1 − α): SmoothQuant (arXiv:2211.10438, equation 4) with root mean squares
instead of maxima, which are as good for outlier channels and slightly better for massive first tokens. Each smoothing
point uses the α with the smallest error of its 8-bit products, or no smoothing if that is better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..architectures import EMBEDDINGS, DecoderConfig
from ..passes.smooth import LayerScales, SmoothingPoint, repeat_kv
from ..sources.checkpoint import Checkpoint
from .layer_walk import DecoderLayer, TextBatch, embed_texts, finish_texts
from .products import ProductGroup
from .rounding import multiply

ALPHAS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
"""Candidates for α."""
READERS = {
    SmoothingPoint.ATTENTION: ProductGroup.QKV,
    SmoothingPoint.VALUE: ProductGroup.OUTPUT,
    SmoothingPoint.MLP: ProductGroup.GATE_UP,
    SmoothingPoint.INTERMEDIATE: ProductGroup.DOWN,
}
"""The products that read the smoothed channels."""

_SAMPLE_TOKENS = 2048
_MIN_RELATIVE_SIZE = 0.1
"""Lower bound of a channel's size relative to the median channel: calibration may miss what activates a channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """Result of a calibration run."""

    layers: dict[int, LayerScales]
    """Scales of each layer."""
    vectors: torch.Tensor
    """float32 [texts, hidden]: the final embeddings in fp32, which smoothing does not change."""


def choose_smoothing(
    checkpoint: Checkpoint,
    rows: Sequence[Sequence[int]],
    points: Sequence[SmoothingPoint],
    on_layer: Callable[[int, int], None],
) -> Smoothing:
    """Choose the scales at `points` in each layer of `checkpoint`, from the activations of `rows` of token ids.

    `on_layer(done, total)` is called after each layer.
    """
    config, layers = checkpoint.config, {}
    batches = embed_texts(checkpoint.weights[EMBEDDINGS], rows)
    stride = -(-sum(map(len, rows)) // _SAMPLE_TOKENS)
    for index in range(config.layers):
        layer = DecoderLayer(checkpoint, index)
        layers[index] = _choose(layer, _record_inputs(layer, batches, stride), points, config)
        on_layer(index + 1, config.layers)
    return Smoothing(layers=layers, vectors=finish_texts(checkpoint, batches))


def _record_inputs(layer: DecoderLayer, batches: list[TextBatch], stride: int) -> dict[ProductGroup, torch.Tensor]:
    """Run the layer on `batches`, in place, and return a sample of what each group of products reads [T, in]."""
    parts = []
    with layer.recorded() as inputs:
        for index, batch in enumerate(batches):
            batches[index] = layer.run(batch)
            parts.append({group: values[batch.real][::stride] for group, values in inputs.items()})
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
    """Return the best scale of the channels of `inputs` [T, in]; None if no smoothing is better.

    `grouped` is given if query heads share the channels of a key-value head; the scale is then [kv_width].
    """

    def measure(values: torch.Tensor) -> torch.Tensor:
        squares = values.square().mean(0)
        if grouped is not None:
            squares = squares.reshape(grouped.kv_heads, -1, grouped.head_dim).mean(1).reshape(-1)
        return _clamp_small(squares.sqrt())

    def repeat(scale: torch.Tensor) -> torch.Tensor:
        return scale if grouped is None else repeat_kv(scale, grouped.query_width, grouped.head_dim)

    exact = inputs @ weight.T
    activation, column = measure(inputs), measure(weight)
    best_scale, smallest_error = None, _error(multiply(inputs, weight), exact)
    for alpha in ALPHAS:
        scale = activation**alpha / column ** (1 - alpha)
        scale = scale / scale.log().mean().exp()
        error = _error(multiply(inputs / repeat(scale), weight * repeat(scale)), exact)
        if error < smallest_error:
            best_scale, smallest_error = scale, error
    return best_scale


def _clamp_small(channel_sizes: torch.Tensor) -> torch.Tensor:
    return channel_sizes.clamp_min(max(float(channel_sizes.median()) * _MIN_RELATIVE_SIZE, 1e-12))


def _error(actual: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the mean over tokens of the squared relative error."""
    return float(((actual - exact).square().sum(1) / exact.square().sum(1).clamp_min(1e-30)).mean())
