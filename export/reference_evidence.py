"""Outputs of the reference, computed before weights are lowered and written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..client.manifest import RangeReport, WitnessReport
from .int8.calibration import LONGEST_ROW, held_out_texts
from .model_sources import ModelSources
from .options import WitnessChoice
from .passes.rescale import ActivationPeaks, Rescale
from .progress import Progress, SilentProgress
from .sources.precedence import setting_files
from .tasks.task import ReferenceRun
from .verification.optimum_witness import PACKAGE as OPTIMUM
from .verification.optimum_witness import last_states
from .verification.reference import ReferenceModel
from .verification.retrieval import RetrievalRows, measure_ndcg
from .verification.vocabulary_survey import outstanding_tokens
from .verification.witness import PACKAGE, WitnessUnavailableError, witness_folder

_BATCH_ROWS = 4
_SHORTEST_PROBE = 64
_SURVEY_BATCH_ROWS = 32
_AFTER_PROMPT = 32
"""Surveyed tokens that are also tried after a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularySurvey:
    """Largest activations of rows with a single token of the vocabulary, alone and after a prompt."""

    tokens: int
    peaks: ActivationPeaks


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceEvidence:
    """Outputs of transformers in fp32, which the written model is compared with."""

    probes: ReferenceRun
    """Probe texts, and a long text at the end."""
    held_out: ReferenceRun | None
    """Texts that calibration does not use; None for formats without calibration."""
    ndcg: float | None
    """nDCG@10 over the retrieval set; None if there is no set."""
    survey: VocabularySurvey | None
    """Single tokens of the vocabulary; None for formats that do not overflow."""

    @property
    def peaks(self) -> ActivationPeaks:
        """Largest activations over the probe texts and the survey."""
        found = self.probes.outputs.peaks
        return found if self.survey is None else found.joined(self.survey.peaks)


def compute_reference(
    sources: ModelSources,
    *,
    retrieval: RetrievalRows | None,
    held_out: bool,
    survey: bool,
    budget_s: float,
    progress: Progress,
) -> ReferenceEvidence:
    """Run the reference on the probe texts and, if requested, on held-out texts, single tokens and a retrieval set.

    The longest probe text is shortened so that it takes about `budget_s` seconds.
    """
    progress.stage("computing the reference in transformers fp32")
    model = ReferenceModel(sources.checkpoint)
    return ReferenceEvidence(
        probes=_run_probes(model, sources, budget_s, progress),
        held_out=_run_held_out(model, sources, progress) if held_out else None,
        survey=_survey_vocabulary(model, sources, progress) if survey else None,
        ndcg=None if retrieval is None else _run_retrieval(model, sources, retrieval, progress),
    )


def consult_witness(
    sources: ModelSources, reference: ReferenceEvidence, choice: WitnessChoice, scratch: Path, progress: Progress
) -> WitnessReport | None:
    """Compare the reference with another library; return None if that is off or not possible.

    Raises:
        WitnessError: Their outputs differ.
        WitnessUnavailableError: `choice` requires it, and it cannot load the sources.
    """
    if choice is WitnessChoice.NONE:
        return None
    if choice is WitnessChoice.OPTIMUM:
        progress.stage(f"exporting with {OPTIMUM} as a second witness")
        library, states = last_states(sources.checkpoint, reference.probes.rows, scratch / "witness")
        return sources.task.compare_states(library, states, reference.probes, sources.checkpoint)
    files = setting_files(sources.checkpoint, sources.adapters)
    try:
        folder = witness_folder(sources.checkpoint, sources.adapters, files, scratch)
        progress.stage(f"comparing the reference with {PACKAGE}")
        return sources.task.consult(folder, reference.probes, sources.max_tokens)
    except WitnessUnavailableError as exc:
        if choice is not WitnessChoice.AUTO:
            raise
        progress.note(f"no second witness: {exc}")
        return None


def report_range(reference: ReferenceEvidence, rescale: Rescale) -> RangeReport:
    """Report how far the activations are from overflow in fp16 after `rescale`."""
    return RangeReport(
        residual_exponent=rescale.residual,
        mlp_exponent=rescale.intermediate,
        headroom=rescale.headroom(reference.peaks),
        texts=len(reference.probes.rows),
        tokens=reference.survey.tokens if reference.survey else 0,
    )


def _run_probes(model: ReferenceModel, sources: ModelSources, budget_s: float, progress: Progress) -> ReferenceRun:
    task = sources.task
    rows = task.probe_rows(sources.max_tokens)
    started = time.monotonic()
    outputs = task.run_reference(model, rows, _BATCH_ROWS, progress.step)
    per_token_s = (time.monotonic() - started) / sum(map(len, rows))
    long_row = task.long_row(_affordable_tokens(per_token_s, budget_s, sources.max_tokens))
    longer = task.run_reference(model, [long_row], 1, progress.step)
    return ReferenceRun(rows=[*rows, long_row], outputs=outputs.joined(longer))


def _survey_vocabulary(model: ReferenceModel, sources: ModelSources, progress: Progress) -> VocabularySurvey:
    progress.stage("surveying the vocabulary for large activations")
    tokens = outstanding_tokens(sources.checkpoint)
    rows = [row for row in sources.task.rows_of_tokens(tokens, _AFTER_PROMPT) if len(row) <= sources.max_tokens]
    found = sources.task.run_reference(model, rows, _SURVEY_BATCH_ROWS, progress.step)
    return VocabularySurvey(tokens=len(tokens), peaks=found.peaks)


def _run_held_out(model: ReferenceModel, sources: ModelSources, progress: Progress) -> ReferenceRun:
    rows = sources.task.text_rows(held_out_texts(), min(sources.max_tokens, LONGEST_ROW))
    return ReferenceRun(rows=rows, outputs=sources.task.run_reference(model, rows, _BATCH_ROWS, progress.step))


def _run_retrieval(model: ReferenceModel, sources: ModelSources, retrieval: RetrievalRows, progress: Progress) -> float:
    progress.stage("evaluating retrieval with transformers fp32")

    def embed(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        return sources.task.run_reference(model, [list(row) for row in rows], len(rows), SilentProgress().step).vectors

    return measure_ndcg(retrieval, embed, progress.step)


def _affordable_tokens(per_token_s: float, budget_s: float, max_tokens: int) -> int:
    """Halve `max_tokens` until a text fits the budget; attention doubles the cost per token of a long text."""
    tokens = max_tokens
    while tokens > _SHORTEST_PROBE and 2 * per_token_s * tokens > budget_s:
        tokens //= 2
    return tokens
