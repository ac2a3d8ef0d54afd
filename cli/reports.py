"""The reports of a manifest, as the command line shows them."""

from __future__ import annotations

from collections.abc import Iterable

import typer
from rich.console import Console
from rich.text import Text

from ..client.manifest import (
    ExportRecord,
    MergeReport,
    ParityReport,
    Precision,
    QuantizationReport,
    RangeReport,
    RetrievalReport,
    ScoreParityReport,
    Verification,
    WitnessReport,
)


def show_reports(record: ExportRecord) -> None:
    """Print how far the model was verified, and the reports of what was measured."""
    show_merges(record.merges)
    if record.parity is not None:
        _show_parity(record.parity, record.verification)
    _show_unverified(record)
    if record.witness is not None:
        _show_witness(record.witness)
    if record.fp16_range is not None:
        _show_range(record.fp16_range)
    if record.quantization is not None:
        _show_quantization(record.quantization)
    if record.retrieval is not None:
        _show_retrieval(record.retrieval, record.manifest.precision)


def show_merges(merges: Iterable[MergeReport]) -> None:
    """Print how much each adapter changes."""
    for merge in merges:
        unchanged = f", {merge.unchanged} unchanged" if merge.unchanged else ""
        typer.echo(
            f"adapter {merge.adapter}: {merge.changed} tensors changed{unchanged}, by {merge.relative_change:.2g} of "
            "the norm of their weights"
        )
        typer.echo(
            f"  smallest {merge.smallest:.2g} ({merge.smallest_tensor}), largest {merge.largest:.2g} "
            f"({merge.largest_tensor})"
        )


def _show_unverified(record: ExportRecord) -> None:
    """Print in red on a terminal which texts were not compared, if any; the plain text elsewhere."""
    verified, longest = record.verified_tokens, record.manifest.max_tokens
    if record.parity is None:
        warning = "not verified: the written graph was not compared with transformers (--verify none)"
    elif verified < longest:
        advice = "" if record.verification is Verification.FULL else "; --verify full compares them"
        warning = f"  not verified: texts of {verified + 1:,} to {longest:,} tokens{advice}"
    else:
        return
    Console(highlight=False).print(Text(warning, style="red"), soft_wrap=True)


def _show_parity(parity: ParityReport | ScoreParityReport, verification: Verification | None) -> None:
    if isinstance(parity, ParityReport):
        inputs = f"{parity.texts} texts"
        deviation = f"cosine {parity.min_batched_cosine:.7f}"
        figures = (
            f"min cosine {parity.min_cosine:.8f} (required: {1 - parity.cosine_tolerance:.7g}), "
            f"mean {parity.mean_cosine:.8f}, max error {parity.max_abs_error:.1e}"
        )
    else:
        inputs = f"{parity.pairs} pairs"
        deviation = f"difference {parity.max_batched_score_error:.1e}"
        figures = (
            f"largest difference of a score {parity.max_score_error:.1e} (allowed: {parity.score_tolerance:g}), "
            f"mean {parity.mean_score_error:.1e}, scores {parity.min_score:.3f} to {parity.max_score:.3f}"
        )
    choice = "" if verification is None else f", verify {verification}"
    typer.echo(f"parity with {parity.reference}{choice}: {inputs}, up to {parity.longest_tokens} tokens")
    typer.echo(f"  {figures}")
    same = "bit-identical" if parity.batched_bit_identical else deviation
    typer.echo(f"  alone and batched: {same}  ({parity.runtime})")


def _show_witness(witness: WitnessReport) -> None:
    typer.echo(
        f"second witness {witness.library}: {witness.texts} texts, error {witness.error:.1e} "
        f"(allowed: {witness.tolerance:g})"
    )


def _show_range(found: RangeReport) -> None:
    typer.echo(
        f"fp16 range: activations may be {found.headroom:.1f} times as large as in {found.texts} texts and "
        f"{found.tokens} single tokens"
    )


def _show_quantization(report: QuantizationReport) -> None:
    calibration, held_out = report.calibration, report.held_out
    typer.echo(f"int8, calibrated with {report.calibration_texts} texts ({calibration.reference})")
    if isinstance(held_out, ParityReport):
        typer.echo(
            f"  {held_out.texts} held-out texts: min cosine {held_out.min_cosine:.5f} "
            f"(required: {1 - held_out.cosine_tolerance:.7g}), mean {held_out.mean_cosine:.5f}"
        )
    elif held_out is not None:
        typer.echo(
            f"  {held_out.pairs} held-out pairs: largest difference of a score {held_out.max_score_error:.1e} "
            f"(allowed: {held_out.score_tolerance:g}), mean {held_out.mean_score_error:.1e}"
        )
    typer.echo(
        f"  fp32 layers: {', '.join(report.fp32_layers) or 'none'} ({report.fp32_share:.1%} of the multiply-adds)"
    )
    typer.echo(f"  {report.bytes / 1e6:.1f} MB, {report.bytes / report.fp32_bytes:.2f} times fp32")


def _show_retrieval(report: RetrievalReport, precision: Precision) -> None:
    limit = report.ndcg_loss_tolerance
    allowance = "" if limit is None else f", {limit:g} allowed"
    typer.echo(f"retrieval over {report.evaluation.reference}: {report.queries} queries, {report.documents} documents")
    typer.echo(
        f"  nDCG@10 {report.ndcg_at_10:.4f} in {precision}, {report.reference_ndcg_at_10:.4f} in {report.reference} "
        f"(loss {report.ndcg_loss:.4f}{allowance})"
    )
