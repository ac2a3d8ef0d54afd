"""Merged checkpoint → rotated → smoothed → choice of fp32 layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import Int8AccuracyError
from ..passes.rotate import rotate_stream
from ..passes.rotation import make_rotation
from ..passes.smooth import SmoothingPoint, smooth_weights
from ..progress import Progress
from ..sources.checkpoint import Checkpoint
from .choose_smoothing import choose_smoothing
from .error import GroupError, measure_cosines, measure_groups
from .products import ProductGroup
from .rounding import NORM_OUTPUT_SCALE

SMOOTHING_POINTS = (SmoothingPoint.VALUE, SmoothingPoint.INTERMEDIATE)
"""Points to smooth. After rotation, the outputs of norms have no outliers left (docs/int8.md)."""
MARGIN = 2.0
"""Factor by which the error over calibration texts must be smaller than the limit for held-out texts."""
MAX_FP32_SHARE = 0.5
"""Largest share of the multiply-adds that may stay in fp32."""
_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Plan:
    """The weights to write, and the products that stay in fp32."""

    checkpoint: Checkpoint
    """Rotated and smoothed."""
    fp32_groups: tuple[GroupError, ...]
    """Products in fp32, in the order in which they were chosen."""
    worst: float
    """1 - the smallest cosine over the calibration texts, with `fp32_groups` in fp32."""

    @property
    def norm_output_scale(self) -> float:
        """Scale of the codes of RMSNorm outputs."""
        return NORM_OUTPUT_SCALE

    @property
    def fp32_paths(self) -> frozenset[str]:
        """Paths of the products in fp32."""
        return _paths(self.fp32_groups)

    @property
    def fp32_share(self) -> float:
        """Share of the layers' multiply-adds that are in fp32."""
        config = self.checkpoint.config
        return _multiply_adds(self.fp32_groups) / (config.layers * sum(group.weights(config) for group in ProductGroup))


def plan_int8(checkpoint: Checkpoint, rows: Sequence[Sequence[int]], max_error: float, progress: Progress) -> Int8Plan:
    """Return the plan for `checkpoint` from calibration `rows` of token ids.

    Groups of products move to fp32, the largest error per weight first, until the smallest cosine over `rows` is at
    least 1 − max_error / MARGIN.

    Raises:
        Int8AccuracyError: The error exceeds `max_error` even with MAX_FP32_SHARE of the multiply-adds in fp32.
    """
    progress.stage("smoothing, layer by layer")
    rotation = make_rotation(checkpoint.config.hidden)
    rotated = checkpoint.with_weights(rotate_stream(checkpoint.weights, checkpoint.config, rotation))
    smoothing = choose_smoothing(rotated, rows, SMOOTHING_POINTS, progress.step)
    smoothed = rotated.with_weights(smooth_weights(rotated.weights, rotated.config, smoothing.layers))

    def measure(fp32_groups: tuple[GroupError, ...]) -> Int8Plan:
        progress.stage(
            f"measuring the int8 error{f' with {len(fp32_groups)} groups of products in fp32' if fp32_groups else ''}"
        )
        cosines = measure_cosines(smoothed, rows, _paths(fp32_groups), smoothing.vectors, progress.step)
        return Int8Plan(checkpoint=smoothed, fp32_groups=fp32_groups, worst=1.0 - float(cosines.min()))

    goal, plan = max_error / MARGIN, measure(())
    groups: tuple[GroupError, ...] = ()
    for _ in range(_ROUNDS):
        if plan.worst <= goal:
            break
        groups = groups or measure_errors(smoothed, rows, progress)
        fp32_groups = choose_fp32_groups(groups, plan.worst, plan.fp32_groups, goal)
        if fp32_groups == plan.fp32_groups:
            break
        plan = measure(fp32_groups)
    if not plan.worst <= max_error:
        raise Int8AccuracyError(
            f"int8 is too far from fp32, nothing was written: 1 - min cosine is {plan.worst:.2g} over the "
            f"calibration texts, with {plan.fp32_share:.0%} of the multiply-adds in fp32 (allowed: {max_error:.2g}); "
            "allow a larger error, or use precision fp32"
        )
    return plan


def measure_errors(checkpoint: Checkpoint, rows: Sequence[Sequence[int]], progress: Progress) -> tuple[GroupError, ...]:
    """Run `measure_groups` as a stage of `progress`."""
    progress.stage("measuring the error of each product")
    return measure_groups(checkpoint, rows, progress.step)


def choose_fp32_groups(
    groups: Sequence[GroupError], worst: float, fp32_groups: tuple[GroupError, ...], goal: float
) -> tuple[GroupError, ...]:
    """Extend `fp32_groups` from `groups` until the estimated error falls from `worst` to `goal`.

    The squared errors of groups add up to the total error, so the group with the largest squared error per weight is
    added first. The result never exceeds MAX_FP32_SHARE.
    """
    paths = _paths(fp32_groups)
    rounded = [group for group in groups if not paths.issuperset(group.paths)]
    rounded.sort(key=lambda group: group.error**2 / group.weights, reverse=True)
    total = sum(group.error**2 for group in rounded)
    budget = MAX_FP32_SHARE * _multiply_adds(groups) - _multiply_adds(fp32_groups)
    chosen, remaining = list(fp32_groups), total
    for group in rounded:
        if worst * remaining <= goal * total:
            break
        if _multiply_adds([group]) <= budget:
            chosen.append(group)
            budget -= _multiply_adds([group])
            remaining -= group.error**2
    return tuple(chosen)


def _paths(groups: Sequence[GroupError]) -> frozenset[str]:
    return frozenset(path for group in groups for path in group.paths)


def _multiply_adds(groups: Sequence[GroupError]) -> int:
    """Return the multiply-adds per token; the embedding lookup has none."""
    return sum(group.weights for group in groups if group.layer is not None)
