"""Quantization error: of each product in the residual stream, and of all products in the final embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..architectures import EMBEDDINGS
from ..sources.checkpoint import Checkpoint
from .layer_walk import DecoderLayer, TextBatch, embed_texts, finish_texts
from .products import TABLE, ProductGroup
from .rounding import round_rows

_SAMPLE_TOKENS = 4096
"""Tokens that are enough to estimate a group's mean error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupError:
    """Products that share their input, and the error if only they are quantized."""

    layer: int | None
    """None for the embedding table."""
    group: ProductGroup | None
    """None for the embedding table."""
    paths: tuple[str, ...]
    """Paths of the products in the graph."""
    error: float
    """Root mean square over tokens of the relative change of the residual stream after the products."""
    weights: int
    """Number of weights in their matrices."""


def measure_groups(
    checkpoint: Checkpoint, rows: Sequence[Sequence[int]], on_layer: Callable[[int, int], None]
) -> tuple[GroupError, ...]:
    """Return the error of every group of products over `rows` of token ids, in the order of the model.

    Each group is measured alone in the exact stream, and the squared errors add up. Many rows are subsampled.
    `on_layer(done, total)` is called after each layer.
    """
    table = checkpoint.weights[EMBEDDINGS]
    batches = embed_texts(table, rows)
    tokens = sum(int(batch.real.sum()) for batch in batches)
    squares = sum(_squared_errors(replace(batch, hidden=round_rows(batch.hidden)), batch) for batch in batches)
    groups = [
        GroupError(
            layer=None, group=None, paths=(TABLE,), error=math.sqrt(squares / tokens), weights=math.prod(table.shape)
        )
    ]
    batches = batches[:: max(1, sum(map(len, rows)) // _SAMPLE_TOKENS)]
    tokens = sum(int(batch.real.sum()) for batch in batches)
    for index in range(checkpoint.config.layers):
        layer = DecoderLayer(checkpoint, index)
        errors = dict.fromkeys(ProductGroup, 0.0)
        batches = [_measure_layer(layer, batch, errors) for batch in batches]
        groups += [
            GroupError(
                layer=index,
                group=group,
                paths=group.paths(index, checkpoint),
                error=math.sqrt(squares / tokens),
                weights=group.weights(checkpoint.config),
            )
            for group, squares in errors.items()
        ]
        on_layer(index + 1, checkpoint.config.layers)
    return tuple(groups)


def measure_cosines(
    checkpoint: Checkpoint,
    rows: Sequence[Sequence[int]],
    fp32_layers: frozenset[str],
    exact: torch.Tensor,
    on_layer: Callable[[int, int], None],
) -> torch.Tensor:
    """Return float64 [texts]: cosines between the quantized model's embeddings of `rows` and `exact` [texts, hidden].

    `fp32_layers` has the paths of products that are not quantized. Two embeddings of zeros are equal (1).
    """
    batches = embed_texts(checkpoint.weights[EMBEDDINGS], rows)
    if TABLE not in fp32_layers:
        batches = [replace(batch, hidden=round_rows(batch.hidden)) for batch in batches]
    for index in range(checkpoint.config.layers):
        layer = DecoderLayer(checkpoint, index)
        rounded = [group for group in ProductGroup if not fp32_layers.issuperset(group.paths(index, checkpoint))]
        with layer.rounded(rounded):
            batches = [layer.run(batch) for batch in batches]
        on_layer(index + 1, checkpoint.config.layers)
    quantized = finish_texts(checkpoint, batches)
    cosines = torch.nn.functional.cosine_similarity(exact.double(), quantized.double())
    both_zero = (exact == 0).all(1) & (quantized == 0).all(1)
    return torch.where(both_zero, 1.0, cosines)


def _measure_layer(layer: DecoderLayer, batch: TextBatch, errors: dict[ProductGroup, float]) -> TextBatch:
    """Return the exact batch after the layer, and add each group's sum of squared relative errors to `errors`."""
    halves = (
        (layer.attend, (ProductGroup.QKV, ProductGroup.OUTPUT)),
        (layer.feed, (ProductGroup.GATE_UP, ProductGroup.DOWN)),
    )
    for half, groups in halves:
        with layer.recorded() as inputs:
            after = batch.plus(half(batch))
        for group in groups:
            with layer.rounded([group]):
                # a group that does not read the norm is the last product of its half
                update = half(batch) if group.reads_norm else layer.multiply(group, inputs[group])
            errors[group] += _squared_errors(batch.plus(update), after)
        batch = after
    return batch


def _squared_errors(quantized: TextBatch, exact: TextBatch) -> float:
    truth = exact.hidden[exact.real]
    change = (quantized.hidden[exact.real] - truth).square().sum(1)
    return float((change / truth.square().sum(1).clamp_min(1e-30)).sum())
