"""Verification of the written graph against the reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..client.manifest import ParityReport, QuantizationReport, RetrievalReport, ScoreParityReport
from .formats import Tolerance, WeightFormat
from .formats.lowering import LoweredWeights
from .graph.prefixes import StoredPrefixes
from .int8.calibration import CalibrationTexts
from .int8.plan import measure_errors
from .int8.report import report_quantization, require_int8_error
from .model_sources import ModelSources
from .progress import Progress
from .reference_evidence import ReferenceEvidence, held_out_rows
from .tasks.task import ReferenceRun
from .verification.parity import require_parity
from .verification.retrieval import RetrievalRows, measure_ndcg, report_retrieval, require_ndcg
from .verification.runtime import WrittenModel


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenEvidence:
    """Reports of the verification, all within their tolerances; None where nothing was compared."""

    parity: ParityReport | ScoreParityReport | None
    quantization: QuantizationReport | None
    retrieval: RetrievalReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenGraph:
    """A graph file and the weights that it was written from."""

    model: WrittenModel | None
    """The open file; None if nothing is to run."""
    file: Path
    lowered: LoweredWeights
    prefixes: StoredPrefixes

    @property
    def opened(self) -> WrittenModel:
        """The open file; raises ValueError if there is none."""
        if self.model is None:
            raise ValueError(f"{self.file} was not opened")
        return self.model

    @property
    def format(self) -> WeightFormat:
        """The weight format of the graph."""
        return self.lowered.format


def verify_graph(
    graph: WrittenGraph,
    sources: ModelSources,
    reference: ReferenceEvidence,
    *,
    calibration: CalibrationTexts | None,
    int8_tolerance: Tolerance,
    retrieval: RetrievalRows | None,
    max_ndcg_loss: float | None,
    progress: Progress,
) -> WrittenEvidence:
    """Compare the written graph with what there is of the reference.

    Raises:
        ParityError: Probe texts deviate by more than the format's tolerance.
        Int8AccuracyError: Held-out texts deviate by more than `int8_tolerance`.
        RetrievalQualityError: The loss of nDCG@10 exceeds `max_ndcg_loss`.
    """
    parity, quantization = None, None
    if reference.probes is not None:
        longest = max(map(len, reference.probes.rows))
        progress.stage(f"comparing the written file with the reference, on texts of up to {longest:,} tokens")
        parity = sources.task.measure(graph.opened, reference.probes, graph.format.tolerance, progress.step)
        require_parity(parity)
    if calibration is not None:
        quantization = _verify_quantization(graph, sources, reference.held_out, calibration, int8_tolerance, progress)
    found = None
    if retrieval is not None and reference.ndcg is not None:
        progress.stage(f"evaluating retrieval with the {graph.format.precision} graph")
        found = report_retrieval(
            retrieval,
            reference=reference.ndcg,
            written=measure_ndcg(retrieval, graph.opened.run, progress.step),
            runtime=graph.opened.description,
            max_loss=max_ndcg_loss,
        )
        require_ndcg(found)
    return WrittenEvidence(parity=parity, quantization=quantization, retrieval=found)


def _verify_quantization(
    graph: WrittenGraph,
    sources: ModelSources,
    held_out: ReferenceRun | None,
    calibration: CalibrationTexts,
    tolerance: Tolerance,
    progress: Progress,
) -> QuantizationReport:
    plan, report = graph.lowered.int8_plan, None
    if plan is None:
        raise ValueError("the graph was lowered without calibration")
    if held_out is not None:
        progress.stage("comparing the written file with the reference, on held-out texts")
        report = sources.task.measure(graph.opened, held_out, tolerance, progress.step)
        require_int8_error(report)
    errors = measure_errors(plan.checkpoint, held_out_rows(sources), progress)
    return report_quantization(plan, errors, report, calibration, graph.file, sources.max_tokens)
