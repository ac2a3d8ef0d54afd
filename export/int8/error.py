"""What 8 bits change: product by product in the residual stream, and all together in the final vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..reading.checkpoint import Checkpoint
from .layer_walk import DecoderLayer, TextBatch, embed_texts, finish_texts
from .products import TABLE, ProductGroup
from .rounding import round_rows

_ERROR_TOKENS = 4096
"""About as many are enough for a group's mean error; rounding each group alone takes three passes through a layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupError:
    """Products that share their input, and what rounding them alone does."""

    layer: int | None
    """None for the embedding table."""
    group: ProductGroup | None
    paths: tuple[str, ...]
    """The graph's names of them."""
    error: float
    """Root mean square over tokens of the change of the stream behind them, relative to the stream."""
    weights: int
    """Numbers in their matrices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Measurement:
    """Errors of every group in the order of the model, and cosines with all but the kept ones rounded."""

    groups: tuple[GroupError, ...]
    cosines: torch.Tensor
    """float64 [texts]: of each text's final vector to the exact one."""

    @property
    def worst(self) -> float:
        """1 − the smallest cosine."""
        return 1.0 - float(self.cosines.min())


def measure_int8(
    checkpoint: Checkpoint,
    rows: Sequence[Sequence[int]],
    kept: frozenset[str],
    on_layer: Callable[[int, int], None],
) -> Int8Measurement:
    """The rounding errors of `checkpoint` over `rows` of ids, `kept` holding the paths of products left exact.

    Errors of single groups come from the exact stream, so that they can be told apart; they add up in squares. They are
    those of a sample where there are many rows; the cosines are of all.
    """
    table = checkpoint.weights["embed_tokens.weight"]
    exact = embed_texts(table.fp32(), rows)
    coded = [replace(batch, hidden=round_rows(batch.hidden)) for batch in exact]
    error, numbers = _stream_error(coded, exact), math.prod(table.shape)
    groups = [GroupError(layer=None, group=None, paths=(TABLE,), error=error, weights=numbers)]
    if TABLE in kept:
        coded = list(exact)
    stride = max(1, sum(map(len, rows)) // _ERROR_TOKENS)
    tokens = sum(int(batch.real.sum()) for batch in exact[::stride])
    for index in range(checkpoint.config.layers):
        layer = DecoderLayer(checkpoint, index)
        errors = dict.fromkeys(ProductGroup, 0.0)
        for place, batch in enumerate(exact):
            exact[place] = layer.run(batch) if place % stride else _measure_layer(layer, batch, errors)
        paths = {group: group.paths(index, checkpoint.config) for group in ProductGroup}
        groups += [
            GroupError(
                layer=index,
                group=group,
                paths=paths[group],
                error=math.sqrt(squares / tokens),
                weights=group.weights(checkpoint.config),
            )
            for group, squares in errors.items()
        ]
        with layer.rounded([group for group in ProductGroup if not kept.issuperset(paths[group])]):
            coded = [layer.run(batch) for batch in coded]
        on_layer(index + 1, checkpoint.config.layers)
    truth, answers = finish_texts(checkpoint, exact).double(), finish_texts(checkpoint, coded).double()
    return Int8Measurement(groups=tuple(groups), cosines=torch.nn.functional.cosine_similarity(truth, answers))


def _measure_layer(layer: DecoderLayer, batch: TextBatch, errors: dict[ProductGroup, float]) -> TextBatch:
    """The exact batch behind the layer; adds each group's squared relative errors of all tokens to `errors`."""
    halves = (
        (layer.attend, (ProductGroup.QKV, ProductGroup.OUTPUT)),
        (layer.feed, (ProductGroup.GATE_UP, ProductGroup.DOWN)),
    )
    for half, groups in halves:
        after = batch.plus(half(batch.hidden))
        for group in groups:
            with layer.rounded([group]):
                changed = batch.plus(half(batch.hidden))
            errors[group] += _squared_errors(changed, after)
        batch = after
    return batch


def _stream_error(coded: Sequence[TextBatch], exact: Sequence[TextBatch]) -> float:
    tokens = sum(int(batch.real.sum()) for batch in exact)
    squares = sum(_squared_errors(ours, truth) for ours, truth in zip(coded, exact, strict=True))
    return math.sqrt(squares / tokens)


def _squared_errors(coded: TextBatch, exact: TextBatch) -> float:
    truth = exact.hidden[exact.real]
    change = (coded.hidden[exact.real] - truth).square().sum(1)
    return float((change / truth.square().sum(1).clamp_min(1e-30)).sum())
