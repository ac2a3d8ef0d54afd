"""Merged weights → weights that a format can store, by function-preserving passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..architectures import EMBEDDINGS
from ..int8.plan import Int8Plan
from ..passes.balance import balance_weights
from ..passes.rescale import (
    NO_RESCALE,
    ActivationPeaks,
    Rescale,
    choose_rescale,
    largest_value,
    require_activation_range,
    require_fp16_range,
    rescale_weights,
)
from ..passes.usual_scale import UNMEASURED_RESCALE
from ..progress import Progress
from ..sources.checkpoint import Checkpoint
from ..threads import one_thread_per_operator

if TYPE_CHECKING:
    from .weight_format import WeightFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class LoweringInputs:
    """Inputs of the passes; each format uses some of them."""

    checkpoint: Checkpoint
    peaks: ActivationPeaks | None
    """Largest activations of the reference; None if they were not measured."""
    calibration_rows: Sequence[Sequence[int]] = ()
    """Rows of token ids; empty for formats without calibration."""
    max_cosine_error: float
    """Largest 1 - cosine that is allowed for a quantized model."""
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class LoweredWeights:
    """The weights to write, and the results of the passes that the graph needs."""

    checkpoint: Checkpoint
    format: WeightFormat
    """The format with what the passes chose, such as fp32 layers."""
    rescale: Rescale = NO_RESCALE
    peaks: ActivationPeaks | None = None
    """Largest activations before the rescale; None if they were not measured."""
    int8_plan: Int8Plan | None = None
    """Plan of a calibrated format; None for the others."""


def rescale_for_fp16(inputs: LoweringInputs, format: WeightFormat) -> LoweredWeights:
    """Rescale so that activations have headroom in fp16, and balance weights that fp16 cannot hold.

    Without measured activations, weights must have the usual scale; the rescale is then a fixed one.

    Raises:
        UnsupportedCheckpointError: An activation is still out of range. Reading a lowered weight raises it, too, if it
            is out of range.
    """
    checkpoint = inputs.checkpoint
    weights, config = checkpoint.weights, checkpoint.config
    if inputs.peaks is None:
        rescale = UNMEASURED_RESCALE
        inputs.progress.note(
            f"activations are not measured: rescaled by residual 2^{-rescale.residual}, MLP 2^{-rescale.intermediate}, "
            "which suits weights of the usual scale"
        )
        rescaled = require_fp16_range(rescale_weights(weights, config, rescale))
        return LoweredWeights(checkpoint=checkpoint.with_weights(rescaled), format=format, rescale=rescale)
    inputs.progress.stage("comparing weights with the range of fp16")
    with one_thread_per_operator():
        rescale = choose_rescale(inputs.peaks, largest_value(weights[EMBEDDINGS]))
        balance = balance_weights(rescale_weights(weights, config, rescale), config, inputs.peaks, rescale)
    if rescale != NO_RESCALE:
        inputs.progress.note(f"rescaled to fp16's range: residual 2^{-rescale.residual}, MLP 2^{-rescale.intermediate}")
    if balance.layers:
        inputs.progress.note(
            f"balanced weights of {len(balance.layers)} layers by powers of two, because fp16 cannot hold them "
            "or their activations"
        )
    require_activation_range(balance.peaks, rescale)
    return LoweredWeights(
        checkpoint=checkpoint.with_weights(require_fp16_range(balance.weights)),
        format=format,
        rescale=rescale,
        peaks=balance.peaks,
    )
