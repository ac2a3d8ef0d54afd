"""Measures how closely the written model answers as the reference does, alone and in company."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...client.manifest import MAX_COMPANY_SCORE_ERROR, MIN_COMPANY_COSINE, ParityReport, Precision, ScoreParityReport
from ..errors import ParityError
from .reference import REFERENCE_NAME
from .runtime import WrittenModel, pad_row

GATES = {Precision.FP32: 0.999999, Precision.FP16: 0.9999, Precision.BF16: 0.999, Precision.INT8: 0.99}
"""Smallest cosine to the fp32 reference that an export may have."""
COMPANY_GATES = {Precision.BF16: 0.999}
"""Other than MIN_COMPANY_COSINE: a GPU adds up in another order for another batch, which bf16 rounds to 8 bits."""
SCORE_GATES = {Precision.FP32: 1e-4, Precision.FP16: 1e-2, Precision.BF16: 5e-2, Precision.INT8: 1e-1}
"""Largest difference from the fp32 reference's score that an export may have."""
COMPANY_SCORE_GATES = {Precision.BF16: 5e-2}
"""Other than MAX_COMPANY_SCORE_ERROR, for the same reason."""

_LARGEST_PADDING = 7
_COMPANIES = 3


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of each row of `a` with the same row of `b`, both [n, D]; float64 [n], NaN where a row holds one."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1)
    quotient: NDArray[np.float64] = np.einsum("nd,nd->n", a64, b64) / lengths
    return quotient


def measure_parity(
    model: WrittenModel,
    rows: Sequence[Sequence[int]],
    reference: NDArray[np.float32],
    gate: float,
    company_gate: float = MIN_COMPANY_COSINE,
) -> ParityReport:
    """The report on `rows` of ids, whose true answers are `reference` [rows, D] and whose cosines must reach `gate`.

    Company: all rows in one batch, in several orders, each with other padding left and right; cosines to the answers
    alone must reach `company_gate`.
    """
    alone = model.run_alone(rows)
    company = [_in_company(model, rows, seed) for seed in range(_COMPANIES)]
    truth = cosines(alone, reference)
    together = np.stack([cosines(alone, answers) for answers in company])
    return ParityReport(
        reference=REFERENCE_NAME,
        runtime=model.description,
        texts=len(rows),
        longest_tokens=max(map(len, rows)),
        min_cosine=float(truth.min()),
        mean_cosine=float(truth.mean()),
        max_abs_error=float(np.abs(alone - reference).max()),
        min_batched_cosine=float(together.min()),
        batched_bit_identical=all(np.array_equal(alone, answers) for answers in company),
        cosine_tolerance=gate,
        batched_cosine_tolerance=company_gate,
    )


def measure_score_parity(
    model: WrittenModel,
    rows: Sequence[Sequence[int]],
    reference: NDArray[np.float32],
    gate: float,
    company_gate: float = MAX_COMPANY_SCORE_ERROR,
) -> ScoreParityReport:
    """The report on `rows` of ids, whose true scores are `reference` [rows, 1] and may be missed by `gate`.

    Company as in `measure_parity`, where a score may differ by `company_gate`.
    """
    alone = model.run_alone(rows)
    company = np.stack([_in_company(model, rows, seed) for seed in range(_COMPANIES)])
    errors = np.abs(alone - reference)
    return ScoreParityReport(
        reference=REFERENCE_NAME,
        runtime=model.description,
        pairs=len(rows),
        longest_tokens=max(map(len, rows)),
        min_score=float(reference.min()),
        max_score=float(reference.max()),
        max_score_error=float(errors.max()),
        mean_score_error=float(errors.mean()),
        max_batched_score_error=float(np.abs(company - alone).max()),
        batched_bit_identical=bool((company == alone).all()),
        score_tolerance=gate,
        batched_score_tolerance=company_gate,
    )


def _in_company(model: WrittenModel, rows: Sequence[Sequence[int]], seed: int) -> NDArray[np.float32]:
    rng = random.Random(seed)
    order = list(range(len(rows)))
    rng.shuffle(order)
    padded = [pad_row(rows[index], rng.randrange(_LARGEST_PADDING), rng.randrange(_LARGEST_PADDING)) for index in order]
    answers = model.run(padded)
    restored = np.empty_like(answers)
    restored[order] = answers
    return restored


def require_parity(report: ParityReport | ScoreParityReport) -> None:
    """Raises ParityError with the report where a gate does not hold."""
    if not report.passed:
        raise ParityError(
            f"parity failed, nothing was written: {_figures(report)}; "
            "try --precision fp32 and report this with the checkpoint's config.json",
            report,
        )


def _figures(report: ParityReport | ScoreParityReport) -> str:
    if isinstance(report, ParityReport):
        return (
            f"min cosine {report.min_cosine:.7f} to {report.reference} (must reach {report.cosine_tolerance}), "
            f"{report.min_batched_cosine:.7f} between alone and batched"
        )
    return (
        f"a score differs by {report.max_score_error:.1e} from {report.reference} "
        f"(may by {report.score_tolerance:g}), by {report.max_batched_score_error:.1e} between alone and batched"
    )
