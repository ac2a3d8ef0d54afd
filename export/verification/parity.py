"""Parity of the written model with the reference, for rows alone and batched."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...client.manifest import ParityReport, ScoreParityReport
from ..errors import ParityError
from ..formats import Tolerance
from .reference import REFERENCE_NAME
from .runtime import WrittenModel, pad_row

_LARGEST_PADDING = 7
_RUNS = 3
"""Runs of all rows in batches, each in another order."""
_ATTENTION_WEIGHTS = 1 << 26
"""Most attention weights of one head in a batch of more than two rows, rows × square of the longest row. The CPU
provider stores them all where it runs a graph for GPUs."""


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return float64 [n]: the cosine between each row of `a` [n, D] and the same row of `b`; NaN for a row with NaN.

    A row of zeros, the embedding of a final state of zeros, equals another one (1) and no other vector (0).
    """
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a64, axis=1), np.linalg.norm(b64, axis=1)
    product = lengths[0] * lengths[1]
    both_zero = (lengths[0] == 0) & (lengths[1] == 0)
    quotient = np.einsum("nd,nd->n", a64, b64) / np.where(product == 0, 1.0, product)
    found: NDArray[np.float64] = np.where(both_zero, 1.0, quotient)
    return found


def measure_parity(
    model: WrittenModel,
    rows: Sequence[Sequence[int]],
    reference: NDArray[np.float32],
    tolerance: Tolerance,
    on_runs: Callable[[int, int], None],
) -> ParityReport:
    """Compare the model's embeddings of `rows` of token ids with `reference` [rows, D].

    Batched outputs are those of all rows in one batch, or in a few if there are long rows, in several orders and with
    random padding on both sides. `on_runs(done, total)` is called after each run of all rows.
    """
    alone, batched = _run_all(model, rows, on_runs)
    truth = cosines(alone, reference)
    together = np.stack([cosines(alone, outputs) for outputs in batched])
    return ParityReport(
        reference=REFERENCE_NAME,
        runtime=model.description,
        texts=len(rows),
        longest_tokens=max(map(len, rows)),
        min_cosine=float(truth.min()),
        mean_cosine=float(truth.mean()),
        max_abs_error=float(np.abs(alone - reference).max()),
        min_batched_cosine=float(together.min()),
        batched_bit_identical=all(np.array_equal(alone, outputs) for outputs in batched),
        cosine_tolerance=tolerance.cosine,
        batched_cosine_tolerance=tolerance.batched_cosine,
    )


def measure_score_parity(
    model: WrittenModel,
    rows: Sequence[Sequence[int]],
    reference: NDArray[np.float32],
    tolerance: Tolerance,
    on_runs: Callable[[int, int], None],
) -> ScoreParityReport:
    """Compare the model's scores of `rows` of token ids with `reference` [rows, 1]; the rest as in `measure_parity`."""
    alone, batched = _run_all(model, rows, on_runs)
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
        max_batched_score_error=float(np.abs(batched - alone).max()),
        batched_bit_identical=bool((batched == alone).all()),
        score_tolerance=tolerance.score,
        batched_score_tolerance=tolerance.batched_score,
    )


def _run_all(
    model: WrittenModel, rows: Sequence[Sequence[int]], on_runs: Callable[[int, int], None]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the outputs [rows, D] of each row alone, and [runs, rows, D] of rows in batches."""
    alone = model.run_alone(rows)
    on_runs(1, 1 + _RUNS)
    batched = []
    for seed in range(_RUNS):
        batched.append(_run_batched(model, rows, seed))
        on_runs(len(batched) + 1, 1 + _RUNS)
    return alone, np.stack(batched)


def _run_batched(model: WrittenModel, rows: Sequence[Sequence[int]], seed: int) -> NDArray[np.float32]:
    rng = random.Random(seed)
    order = list(range(len(rows)))
    rng.shuffle(order)
    batches = split_batches(order, [len(row) for row in rows])
    outputs = []
    for batch in batches:
        paddings = [(rng.randrange(_LARGEST_PADDING), rng.randrange(_LARGEST_PADDING)) for _ in batch]
        outputs.append(model.run([pad_row(rows[index], *sides) for index, sides in zip(batch, paddings, strict=True)]))
    joined = np.concatenate(outputs)
    restored = np.empty_like(joined)
    restored[[index for batch in batches for index in batch]] = joined
    return restored


def split_batches(order: list[int], lengths: Sequence[int]) -> list[list[int]]:
    """Split the row indices `order` into batches: the longest row with some of its neighbors, then the rest likewise.

    A batch of more than two rows has at most _ATTENTION_WEIGHTS, and no row is alone unless it is the last one left.
    """
    longest = max(order, key=lengths.__getitem__)
    size = max(2, _ATTENTION_WEIGHTS // lengths[longest] ** 2)
    if size >= len(order):
        return [order]
    first = max(0, order.index(longest) - size // 2)
    batch, rest = order[first : first + size], order[:first] + order[first + size :]
    return [batch, *split_batches(rest, lengths)]


def require_parity(report: ParityReport | ScoreParityReport) -> None:
    """Raise ParityError with the report if it exceeds a tolerance."""
    if not report.passed:
        raise ParityError(
            f"parity failed, nothing was written: {_summary(report)}; "
            "try precision fp32, and report this with the checkpoint's config.json",
            report,
        )


def _summary(report: ParityReport | ScoreParityReport) -> str:
    if isinstance(report, ParityReport):
        return (
            f"min cosine {report.min_cosine:.7f} to {report.reference} "
            f"(must be at least {1 - report.cosine_tolerance:.7g}), "
            f"{report.min_batched_cosine:.7f} between alone and batched"
        )
    return (
        f"a score differs by {report.max_score_error:.1e} from {report.reference} "
        f"(allowed: {report.score_tolerance:g}), by {report.max_batched_score_error:.1e} between alone and batched"
    )
