"""Outputs of the reference, computed before weights are lowered and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..client.manifest import RangeReport, Verification, WitnessReport
from .int8.calibration import LONGEST_ROW, held_out_texts
from .model_sources import ModelSources
from .options import WitnessChoice
from .passes.rescale import ActivationPeaks, Rescale
from .passes.usual_scale import has_usual_scale
from .progress import Progress, SilentProgress
from .sources.precedence import setting_files
from .tasks.task import ReferenceRun
from .threads import one_thread_per_operator
from .verification.lengths import longest_text
from .verification.optimum_witness import LONGEST_ROW as LONGEST_OPTIMUM_ROW
from .verification.optimum_witness import PACKAGE as OPTIMUM
from .verification.optimum_witness import pooled_states
from .verification.reference import ReferenceModel
from .verification.retrieval import RetrievalRows, measure_ndcg
from .verification.vocabulary_survey import outstanding_tokens
from .verification.witness import PACKAGE, WitnessUnavailableError, witness_folder

_AFTER_PROMPT = 32
"""Surveyed tokens that are also tried after a prompt."""
_STAGE = "computing the reference in transformers fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationSurvey:
    """Largest activations of the probe texts, and of single tokens of the vocabulary alone and after a prompt."""

    texts: int
    tokens: int
    peaks: ActivationPeaks


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceEvidence:
    """Outputs of transformers in fp32; those that the written model is compared with are None without verification."""

    probes: ReferenceRun | None = None
    """Probe texts, and a long text at the end."""
    held_out: ReferenceRun | None = None
    """Texts that calibration does not use; None for formats without calibration."""
    ndcg: float | None = None
    """nDCG@10 over the retrieval set; None if there is no set."""
    survey: ActivationSurvey | None = None
    """None if the precision does not need it."""


def compute_reference(
    sources: ModelSources,
    *,
    retrieval: RetrievalRows | None,
    verify: Verification,
    calibrated: bool,
    may_overflow: bool,
    progress: Progress,
) -> ReferenceEvidence:
    """Run the reference on the texts that the written model is compared on, and on those that its precision needs.

    Args:
        sources: The model.
        retrieval: A retrieval set to evaluate, if any.
        verify: Whether the written model is compared, and up to which length.
        calibrated: Whether the precision is calibrated, so that held-out texts are compared as well.
        may_overflow: Whether the precision needs the largest activations. Without verification, they are measured only
            if the weights have an unusual scale.
        progress: Receives a stage for each group of texts, whose steps are layers.
    """
    measures_range = may_overflow and (verify.compares or not _has_usual_scale(sources))
    if not verify.compares and not measures_range:
        return ReferenceEvidence()
    task = sources.task
    probes = task.probe_rows(sources.max_tokens)
    probes.append(task.long_row(longest_text(verify, sources.checkpoint.config, sources.max_tokens)))
    held_out = held_out_rows(sources) if calibrated and verify.compares else []
    tokens = _survey_tokens(sources, progress) if measures_range else []
    surveyed = [row for row in task.rows_of_tokens(tokens, _AFTER_PROMPT) if len(row) <= sources.max_tokens]
    rows = [*probes, *held_out, *surveyed]
    progress.stage(f"{_STAGE}: {len(rows)} texts of up to {max(map(len, rows)):,} tokens")
    model = ReferenceModel(sources.checkpoint)
    # in one run, because each layer is loaded once for a run
    outputs = task.run_reference(model, rows, progress.step)
    return ReferenceEvidence(
        probes=ReferenceRun(rows=probes, outputs=outputs.part(0, len(probes))) if verify.compares else None,
        held_out=ReferenceRun(rows=held_out, outputs=outputs.part(len(probes), len(held_out))) if held_out else None,
        survey=ActivationSurvey(texts=len(probes), tokens=len(tokens), peaks=outputs.peaks) if measures_range else None,
        ndcg=None if retrieval is None else _run_retrieval(model, sources, retrieval, progress),
    )


def consult_witness(
    sources: ModelSources, probes: ReferenceRun | None, choice: WitnessChoice, scratch: Path, progress: Progress
) -> WitnessReport | None:
    """Compare the reference with another library; return None if that is off or not possible.

    Raises:
        WitnessError: Their outputs differ.
        WitnessUnavailableError: `choice` requires it, and it cannot load the sources.
    """
    if choice is WitnessChoice.NONE or probes is None:
        return None
    if choice is WitnessChoice.OPTIMUM:
        progress.stage(f"exporting with {OPTIMUM} as a second witness")
        run = probes.up_to(LONGEST_OPTIMUM_ROW)
        library, states = pooled_states(sources.checkpoint, run.rows, scratch / "witness")
        return sources.task.compare_states(library, states, run, sources.checkpoint)
    files = setting_files(sources.checkpoint, sources.adapters)
    try:
        folder = witness_folder(sources.checkpoint, sources.adapters, files, scratch)
        progress.stage(f"comparing the reference with {PACKAGE}")
        return sources.task.consult(folder, probes, sources.max_tokens)
    except WitnessUnavailableError as exc:
        if choice is not WitnessChoice.AUTO:
            raise
        progress.note(f"no second witness: {exc}")
        return None


def report_range(survey: ActivationSurvey, peaks: ActivationPeaks, rescale: Rescale) -> RangeReport:
    """Report how far the activations are from overflow in fp16: `peaks`, those of the lowered weights, rescaled."""
    return RangeReport(
        residual_exponent=rescale.residual,
        mlp_exponent=rescale.intermediate,
        headroom=rescale.headroom(peaks),
        texts=survey.texts,
        tokens=survey.tokens,
    )


def held_out_rows(sources: ModelSources) -> list[list[int]]:
    """Return the rows of texts that calibration does not use."""
    return sources.task.text_rows(held_out_texts(), min(sources.max_tokens, LONGEST_ROW))


def _has_usual_scale(sources: ModelSources) -> bool:
    with one_thread_per_operator():
        return has_usual_scale(sources.checkpoint.weights, sources.checkpoint.config)


def _survey_tokens(sources: ModelSources, progress: Progress) -> list[int]:
    progress.stage("surveying the vocabulary for large activations")
    with one_thread_per_operator():
        return outstanding_tokens(sources.checkpoint)


def _run_retrieval(model: ReferenceModel, sources: ModelSources, retrieval: RetrievalRows, progress: Progress) -> float:
    progress.stage("evaluating retrieval with transformers fp32")

    def embed(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        return sources.task.run_reference(model, [list(row) for row in rows], SilentProgress().step).vectors

    return measure_ndcg(retrieval, embed, progress.step)
