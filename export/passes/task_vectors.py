"""Fusion of checkpoints by their task vectors: the changes that fine-tuning made to the weights of one base.

With the base b, the checkpoints a₁, a₂, … of weights w₁, w₂, … and τₖ = aₖ − b, each tensor becomes

    task arithmetic   b + λ·Σ wₖ·τₖ                      (Ilharco et al., arXiv 2212.04089)
    TIES              b + λ·Σ wₖ·τ̂ₖ / Σ wₖ, per value    (Yadav et al., arXiv 2306.01708)

TIES trims each τₖ to its largest magnitudes, which gives τ̂ₖ, elects for each value the sign of Σ wₖ·τ̂ₖ, and sums over
the k whose τ̂ₖ has that sign. Magnitudes equal to the smallest that remains also remain, as in the code of the authors.
Apart from those this is what mergekit does, with its `normalize` as by default: off for task arithmetic, on for TIES.

Invariant: where no task vector changes a value of the base, it keeps its bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..sources.weights import LazyTensor


def add_task_vectors(
    base: LazyTensor, tensors: Sequence[LazyTensor], weights: Sequence[float], scale: float
) -> LazyTensor:
    """Return `base` plus the weighted task vectors of `tensors`, in fp32, computed when it is read.

    Args:
        base: The tensor of the base.
        tensors: The same tensor of each checkpoint.
        weights: Weight of each task vector; a negative one subtracts it.
        scale: λ.
    """

    def load() -> torch.Tensor:
        origin = base.fp32()
        change = torch.zeros_like(origin)
        for tensor, weight in zip(tensors, weights, strict=True):
            change.add_(tensor.fp32() - origin, alpha=weight * scale)
        return _changed(origin, change)

    return LazyTensor(base.shape, torch.float32, load)


def add_ties(
    base: LazyTensor, tensors: Sequence[LazyTensor], weights: Sequence[float], density: float, scale: float
) -> LazyTensor:
    """Return `base` plus the task vectors of `tensors`, fused by TIES, in fp32, computed when it is read.

    Every tensor is read twice, so that memory does not depend on their number.

    Args:
        base: The tensor of the base.
        tensors: The same tensor of each checkpoint.
        weights: Weight of each task vector, above 0.
        density: Share of each task vector's values that remains, in (0, 1].
        scale: λ.
    """

    def load() -> torch.Tensor:
        origin = base.fp32()

        def weighted() -> Iterator[tuple[torch.Tensor, float]]:
            for tensor, weight in zip(tensors, weights, strict=True):
                yield trim(tensor.fp32() - origin, density).mul_(weight), weight

        change = torch.zeros_like(origin)
        for values, _ in weighted():
            change += values
        positive = change >= 0
        change.zero_()
        total = torch.zeros_like(origin)
        for values, weight in weighted():
            agrees = torch.where(positive, values > 0, values < 0)
            change += values.mul_(agrees)
            total.add_(agrees, alpha=weight)
        return _changed(origin, change.mul_(scale).div_(total.masked_fill_(total == 0, 1.0)))

    return LazyTensor(base.shape, torch.float32, load)


def trim(values: torch.Tensor, density: float) -> torch.Tensor:
    """Return a copy of `values` with zeros for all but the share `density` of largest magnitude, at least one."""
    magnitudes = values.abs()
    count = values.numel()
    rank = count - max(1, int(density * count))
    ordered = magnitudes.flatten().numpy().copy()
    ordered.partition(rank)
    return torch.where(magnitudes >= float(ordered[rank]), values, 0.0)


def _changed(origin: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    # the sum alone would turn -0 into 0
    return torch.where(change == 0, origin, origin + change)
