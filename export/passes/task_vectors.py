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

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
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

    def fuse(changes: list[torch.Tensor]) -> torch.Tensor:
        change = torch.zeros_like(changes[0])
        for values, weight in zip(changes, weights, strict=True):
            change.add_(values, alpha=scale * weight)
        return change

    return LazyTensor(base.shape, torch.float32, lambda: _add(base, tensors, fuse))


def add_ties(
    base: LazyTensor, tensors: Sequence[LazyTensor], weights: Sequence[float], density: float, scale: float
) -> LazyTensor:
    """Return `base` plus the task vectors of `tensors`, fused by TIES, in fp32, computed when it is read.

    Every tensor is read twice: for its smallest magnitude that remains, and for its values.

    Args:
        base: The tensor of the base.
        tensors: The same tensor of each checkpoint.
        weights: Weight of each task vector, above 0.
        density: Share of each task vector's values that remains, in (0, 1].
        scale: λ.
    """

    def load() -> torch.Tensor:
        smallest = [_smallest_to_remain(base, tensor, density) for tensor in tensors]

        def fuse(changes: list[torch.Tensor]) -> torch.Tensor:
            elected = torch.zeros_like(changes[0])
            for values, least, weight in zip(changes, smallest, weights, strict=True):
                values.masked_fill_(values.abs() < least, 0.0).mul_(weight)
                elected += values
            positive = elected >= 0
            change, total = torch.zeros_like(elected), torch.zeros_like(elected)
            for values, weight in zip(changes, weights, strict=True):
                agreeing = torch.where(positive, values.clamp_min(0.0), values.clamp_max(0.0))
                change += agreeing
                total.add_((agreeing != 0).float(), alpha=weight)
            return change.div_(total.masked_fill_(total == 0, 1.0)).mul_(scale)

        return _add(base, tensors, fuse)

    return LazyTensor(base.shape, torch.float32, load)


def _add(
    base: LazyTensor, tensors: Sequence[LazyTensor], fuse: Callable[[list[torch.Tensor]], torch.Tensor]
) -> torch.Tensor:
    """Return `base` plus what `fuse` makes of the task vectors, which it may overwrite, part by part."""
    fused = torch.empty(base.shape)
    rest = fused.view(-1)
    for origin, changes in _changes(base, tensors):
        change = fuse(changes)
        # the sum alone would turn -0 into 0
        rest[: origin.numel()] = torch.where(change == 0, origin, origin + change).flatten()
        rest = rest[origin.numel() :]
    return fused


def _smallest_to_remain(base: LazyTensor, tensor: LazyTensor, density: float) -> float:
    """Return the smallest magnitude in the task vector of `tensor` that remains; at least one value does."""
    magnitudes, done = np.empty(math.prod(base.shape), np.float32), 0
    for origin, [change] in _changes(base, [tensor]):
        magnitudes[done : done + origin.numel()] = change.abs_().flatten().numpy()
        done += origin.numel()
    rank = magnitudes.size - max(1, int(density * magnitudes.size))
    magnitudes.partition(rank)
    return float(magnitudes[rank])


def _changes(base: LazyTensor, tensors: Sequence[LazyTensor]) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    """Yield parts of `base` with the same parts of the task vectors of `tensors`."""
    for origin, *tuned in zip(base.fp32_parts(), *(tensor.fp32_parts() for tensor in tensors), strict=True):
        yield origin, [part - origin for part in tuned]
