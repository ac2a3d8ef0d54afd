"""Merged checkpoint → rotated → smoothed → what of it becomes 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import Int8AccuracyError
from ..passes.rotate import rotate_stream
from ..passes.rotation import make_rotation
from ..passes.smooth import SmoothingPoint
from ..progress import Progress
from ..sources.checkpoint import Checkpoint
from .choose_smoothing import choose_smoothing
from .error import GroupError, measure_cosines, measure_groups
from .products import ProductGroup
from .rounding import NORM_OUTPUT_SCALE

SMOOTHING_POINTS = (SmoothingPoint.VALUE, SmoothingPoint.INTERMEDIATE)
"""What is smoothed: behind the norms the rotation leaves nothing to smooth (docs/int8.md)."""
MARGIN = 2.0
"""Calibration must come out this many times better than what held-out texts have to reach."""
MAX_FP32_SHARE = 0.5
"""Share of the multiply-adds that may stay in floats; a model beyond it is no 8-bit model."""
_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Plan:
    """The weights to write, and which of them stay in floats."""

    checkpoint: Checkpoint
    fp32_groups: tuple[GroupError, ...]
    """The worst first."""
    worst: float
    """1 - the smallest cosine over the calibration texts, with `fp32_groups` in floats."""

    @property
    def norm_output_scale(self) -> float:
        """What one step of the codes of normed rows is worth."""
        return NORM_OUTPUT_SCALE

    @property
    def fp32_paths(self) -> frozenset[str]:
        """The graph's names of the products in fp32."""
        return _paths(self.fp32_groups)

    @property
    def fp32_share(self) -> float:
        """Multiply-adds a token that stay in floats, of all that the layers' products have."""
        config = self.checkpoint.config
        return _multiply_adds(self.fp32_groups) / (config.layers * sum(group.weights(config) for group in ProductGroup))


def plan_int8(
    checkpoint: Checkpoint, rows: Sequence[Sequence[int]], max_error: float, scratch: Path, progress: Progress
) -> Int8Plan:
    """Return the plan for `checkpoint` from calibration `rows` of token ids; its weights are stored below `scratch`.

    Groups of products stay in floats until the smallest cosine of `rows` is 1 − max_error / MARGIN or more, as few
    weights as will do. Raises Int8AccuracyError where MAX_FP32_SHARE of them are not enough for `max_error` itself.
    """
    progress.stage("smoothing, layer by layer")
    rotation = make_rotation(checkpoint.config.hidden)
    rotated = checkpoint.with_weights(rotate_stream(checkpoint.weights, checkpoint.config, rotation))
    file = scratch / "smoothed.safetensors"
    smoothing = choose_smoothing(rotated, rows, SMOOTHING_POINTS, file, progress.step)
    smoothed = rotated.with_weights(smoothing.weights)

    def keep_in_fp32(fp32_groups: tuple[GroupError, ...]) -> Int8Plan:
        progress.stage(
            f"measuring what 8 bits change{f', products in fp32: {len(fp32_groups)}' if fp32_groups else ''}"
        )
        cosines = measure_cosines(smoothed, rows, _paths(fp32_groups), smoothing.vectors, progress.step)
        return Int8Plan(checkpoint=smoothed, fp32_groups=fp32_groups, worst=1.0 - float(cosines.min()))

    goal, plan = max_error / MARGIN, keep_in_fp32(())
    groups: tuple[GroupError, ...] = ()
    for _ in range(_ROUNDS):
        if plan.worst <= goal:
            break
        groups = groups or measure_errors(smoothed, rows, progress)
        fp32_groups = choose_fp32_groups(groups, plan.worst, plan.fp32_groups, goal)
        if fp32_groups == plan.fp32_groups:
            break
        plan = keep_in_fp32(fp32_groups)
    if not plan.worst <= max_error:
        raise Int8AccuracyError(
            f"int8 is too far from fp32, nothing was written: 1 - min cosine is {plan.worst:.2g} over the "
            f"calibration texts, with {plan.fp32_share:.0%} of the multiply-adds in fp32, and must be "
            f"{max_error:.2g}; allow a larger error, or use precision fp32"
        )
    return plan


def measure_errors(checkpoint: Checkpoint, rows: Sequence[Sequence[int]], progress: Progress) -> tuple[GroupError, ...]:
    """`measure_groups`, which takes its time."""
    progress.stage("measuring the error of every product")
    return measure_groups(checkpoint, rows, progress.step)


def choose_fp32_groups(
    groups: Sequence[GroupError], worst: float, fp32_groups: tuple[GroupError, ...], goal: float
) -> tuple[GroupError, ...]:
    """`fp32_groups` and those of all `groups` that must join it for the error to fall from `worst` to `goal`.

    Squared errors of groups add up to the error of all, so the next one is always that with the largest square for
    its weights. Stops at MAX_FP32_SHARE.
    """
    paths = _paths(fp32_groups)
    rounded = [group for group in groups if not paths.issuperset(group.paths)]
    rounded.sort(key=lambda group: group.error**2 / group.weights, reverse=True)
    total = sum(group.error**2 for group in rounded)
    room = MAX_FP32_SHARE * _multiply_adds(groups) - _multiply_adds(fp32_groups)
    chosen, left = list(fp32_groups), total
    for group in rounded:
        if worst * left <= goal * total:
            break
        if _multiply_adds([group]) <= room:
            chosen.append(group)
            room -= _multiply_adds([group])
            left -= group.error**2
    return tuple(chosen)


def _paths(groups: Sequence[GroupError]) -> frozenset[str]:
    return frozenset(path for group in groups for path in group.paths)


def _multiply_adds(groups: Sequence[GroupError]) -> int:
    """Of one token; looking up the table has none."""
    return sum(group.weights for group in groups if group.layer is not None)
