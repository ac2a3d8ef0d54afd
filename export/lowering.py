"""The weights as the precision of an export takes them."""

from __future__ import annotations

from dataclasses import dataclass

from ..client.manifest import Device, Precision
from .int8.calibration import CALIBRATION_TOKENS, LONGEST_ROW, CalibrationTexts, spread
from .int8.plan import Int8Plan, plan_int8
from .model_sources import Prepared
from .options import ExportOptions
from .passes.rescale import NO_RESCALE, ActivationPeaks, Rescale, check_fp16_range, choose_rescale, rescale_weights
from .progress import Progress
from .sources.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The weights behind the passes of their precision, and what the graph must know of these."""

    checkpoint: Checkpoint
    rescale: Rescale = NO_RESCALE
    plan: Int8Plan | None = None


def lower_weights(
    prepared: Prepared,
    options: ExportOptions,
    peaks: ActivationPeaks,
    calibration: CalibrationTexts | None,
    progress: Progress,
) -> Form:
    """The weights as their precision takes them."""
    if calibration is not None:
        return _form_int8(prepared, calibration, max_int8_error(prepared, options), progress)
    if not _computes_in_fp16(options):
        return Form(checkpoint=prepared.checkpoint)
    rescale = choose_rescale(peaks)
    if rescale != NO_RESCALE:
        progress.note(f"rescaled against overflow: residual 2^-{rescale.residual}, MLP 2^-{rescale.intermediate}")
    rescaled = prepared.checkpoint.with_weights(rescale_weights(prepared.checkpoint.weights, rescale))
    check_fp16_range(rescaled.weights)
    return Form(checkpoint=rescaled, rescale=rescale)


def _form_int8(prepared: Prepared, calibration: CalibrationTexts, max_error: float, progress: Progress) -> Form:
    texts = prepared.task.text_rows(calibration.texts, min(prepared.max_tokens, LONGEST_ROW))
    limit = prepared.task.cosine_limit(max_error)
    plan = plan_int8(prepared.checkpoint, spread(texts, CALIBRATION_TOKENS), limit, progress)
    if plan.fp32_groups:
        names = ", ".join(path for group in plan.fp32_groups for path in group.paths)
        progress.note(f"computed in fp32, {plan.fp32_share:.1%} of the multiply-adds: {names}")
    return Form(checkpoint=plan.checkpoint, plan=plan)


def _computes_in_fp16(options: ExportOptions) -> bool:
    """Whether activations may overflow."""
    blocks = options.device is Device.CUDA and options.precision is Precision.INT8
    return blocks or options.precision is Precision.FP16


def max_int8_error(prepared: Prepared, options: ExportOptions) -> float:
    return prepared.task.int8_max_error if options.int8.max_error is None else options.int8.max_error
