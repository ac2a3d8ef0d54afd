"""The quantization report of an int8 export, and its accuracy gate over held-out texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ...client.manifest import LayerErrors, ParityReport, QuantizationReport, ScoreParityReport, SourceIdentity
from ..architectures import DecoderConfig
from ..errors import Int8AccuracyError
from .calibration import CalibrationTexts
from .error import GroupError
from .plan import Int8Plan
from .products import ProductGroup


def report_quantization(
    plan: Int8Plan,
    measured: Sequence[GroupError],
    held_out: ParityReport | ScoreParityReport | None,
    calibration: CalibrationTexts,
    file: Path,
    max_tokens: int,
) -> QuantizationReport:
    """Build the report of the graph in `file`.

    Args:
        plan: Plan that the graph was written from.
        measured: Errors of all groups over held-out texts, the embedding table first.
        held_out: Parity over held-out texts; None without verification.
        calibration: Calibration texts.
        file: The .onnx file; its folder has no other files.
        max_tokens: Positions of the rope tables.
    """
    table, *groups = measured
    errors = {(group.layer, group.group): group.error for group in groups}
    config = plan.checkpoint.config
    return QuantizationReport(
        calibration=SourceIdentity(reference=calibration.reference, sha256=calibration.sha256),
        calibration_texts=len(calibration.texts),
        held_out=held_out,
        table_error=table.error,
        layer_errors=tuple(
            LayerErrors(
                qkv=errors[layer, ProductGroup.QKV],
                output=errors[layer, ProductGroup.OUTPUT],
                gate_up=errors[layer, ProductGroup.GATE_UP],
                down=errors[layer, ProductGroup.DOWN],
            )
            for layer in range(config.layers)
        ),
        fp32_layers=tuple(path for group in plan.fp32_groups for path in group.paths),
        fp32_share=plan.fp32_share,
        bytes=sum(part.stat().st_size for part in file.parent.iterdir()),
        fp32_bytes=_fp32_bytes(config, max_tokens),
    )


def require_int8_error(report: ParityReport | ScoreParityReport) -> None:
    """Raise Int8AccuracyError if the report over held-out texts exceeds its tolerance."""
    if report.passed:
        return
    if isinstance(report, ParityReport):
        found = f"1 - min cosine is {1 - report.min_cosine:.2g} over {report.texts} held-out texts"
        limit = report.cosine_tolerance
    else:
        found = f"a score differs by {report.max_score_error:.2g} over {report.pairs} held-out pairs"
        limit = report.score_tolerance
    raise Int8AccuracyError(
        f"int8 is too far from fp32, nothing was written: {found} (allowed: {limit:.4g}); calibrate with texts of "
        "your domain, allow a larger error, or use precision fp32"
    )


def _fp32_bytes(config: DecoderConfig, max_tokens: int) -> int:
    """Return the size of the decoder and the rope tables in fp32."""
    numbers = sum(math.prod(shape) for shape in config.tensor_shapes().values())
    return 4 * (numbers + max_tokens * config.head_dim)
