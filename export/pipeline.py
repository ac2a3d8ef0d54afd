"""Checkpoint → merged → rescaled, or rotated and smoothed → graph → written → proven → renamed into the repository."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..client.manifest import (
    Device,
    EmbeddingManifest,
    ExportRecord,
    ModelFolder,
    Precision,
    RerankManifest,
    TokenizerIdentity,
)
from .artifacts.config_pbtxt import render_config
from .artifacts.graph_file import write_graph
from .artifacts.memory import report_memory
from .artifacts.provenance import record_provenance
from .artifacts.staging import refuse_existing, staged_folder
from .batching.library import copy_library
from .batching.limits import BatchLimits, limit_batches
from .errors import ExportError
from .graph import CudaProfile, GraphOptions
from .int8.calibration import (
    LONGEST_ROW,
    CalibrationTexts,
    held_out_texts,
    read_calibration,
)
from .int8.plan import measure_errors
from .int8.report import report_quantization, require_int8_error
from .lowering import lower_weights, max_int8_error
from .model_sources import Prepared, model_name, prepare, refuse_unfit
from .options import ExportOptions, Int8Options
from .progress import Progress, SilentProgress
from .sources.retrieval_set import RetrievalSet, read_retrieval_set
from .tasks.task import ManifestFields, Proof
from .verification.reference import ReferenceModel
from .verification.retrieval import RetrievalRows, measure_ndcg, report_retrieval, require_ndcg
from .verification.runtime import WrittenModel
from .verification.token_budget import TokenBudget, measure_token_budget
from .verification.written_check import open_for_check

_REFERENCE_BATCH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written."""

    folder: ModelFolder
    name: str
    version: int
    record: ExportRecord
    bytes_written: int

    @property
    def manifest(self) -> EmbeddingManifest | RerankManifest:
        """What clients must know of the model."""
        return self.record.manifest


def export_model(options: ExportOptions, progress: Progress | None = None) -> ExportResult:
    """Writes a proven model into the repository; it appears whole or not at all.

    Raises ExportError and its kinds (see `errors`).
    """
    progress = progress or SilentProgress()
    refuse_unfit(options)
    name = model_name(options)
    folder = ModelFolder(options.repository / name)
    refuse_existing(folder.path, overwrite=options.overwrite)
    calibration = _read_calibration(options)
    evaluation = _read_evaluation(options)
    progress.stage(f"reading {options.model}")
    prepared = prepare(options, progress)
    retrieval = None if evaluation is None else prepared.task.retrieval_rows(evaluation, prepared.max_tokens)
    progress.stage("computing the reference in transformers fp32")
    model = ReferenceModel(prepared.checkpoint)
    proof = _ask_reference(model, prepared, options.parity_budget_s, progress)
    held_out = None if calibration is None else _ask_held_out(model, prepared, progress)
    true_ndcg = None if retrieval is None else _ask_retrieval(model, prepared, retrieval, progress)
    del model
    form = lower_weights(prepared, options, proof.answers.peaks, calibration, progress)
    graph = GraphOptions(
        task=prepared.task.kind,
        precision=options.precision,
        max_tokens=prepared.max_tokens,
        rescale=form.rescale,
        fp32_layers=frozenset() if form.plan is None else form.plan.fp32_paths,
        norm_output_scale=None if form.plan is None else form.plan.norm_output_scale,
        cuda=_cuda_profile(options),
    )
    version = max(folder.versions(), default=0) + 1
    with staged_folder(folder.path, overwrite=options.overwrite) as content:
        staged = ModelFolder(content)
        progress.stage(f"writing {options.precision} graph")
        write_graph(form.checkpoint, staged.graph(version), graph, progress.step)
        progress.stage("comparing the written file with the reference")
        written = open_for_check(staged.graph(version), form.checkpoint, graph, content.parent, progress)
        proven = prepared.task.prove(written, proof, _manifest_fields(prepared, options))
        quantization = None
        if form.plan is not None and calibration is not None and held_out is not None:
            report = prepared.task.measure(written, held_out, max_int8_error(prepared, options))
            require_int8_error(report)
            measured = measure_errors(form.plan.checkpoint, held_out.rows, progress)
            quantization = report_quantization(
                form.plan, measured, report, calibration, staged.graph(version), prepared.max_tokens
            )
        found = None
        if retrieval is not None and true_ndcg is not None:
            progress.stage(f"retrieval with the {options.precision} graph")
            found = report_retrieval(
                retrieval,
                reference=true_ndcg,
                written=measure_ndcg(retrieval, written.run, progress.step),
                runtime=written.description,
                max_loss=options.evaluation.max_ndcg_loss,
            )
            require_ndcg(found)
        staged.tokenizer.write_bytes(prepared.tokenizer.file.read_bytes())
        limits = _limit_batches(written, prepared, options, progress)
        staged.config.write_text(render_config(name, proven.manifest, options, limits, version), encoding="utf-8")
        if limits.tokens is not None:
            copy_library(options.serving.server_architecture, staged.batch_strategy(version))
        record = ExportRecord(
            manifest=proven.manifest,
            device=options.device,
            triton_release=options.triton_release if options.device is Device.CUDA else None,
            checkpoint=prepared.checkpoint.identity(),
            adapters=tuple(adapter.identity() for adapter in prepared.adapters),
            parity=proven.parity,
            quantization=quantization,
            retrieval=found,
            provenance=record_provenance(options, staged),
        )
        staged.manifest.write_text(record.to_json() + "\n", encoding="utf-8")
        size = sum(file.stat().st_size for file in content.rglob("*") if file.is_file())
    return ExportResult(folder=folder, name=name, version=version, record=record, bytes_written=size)


def _ask_reference(model: ReferenceModel, prepared: Prepared, budget_s: float, progress: Progress) -> Proof:
    """The probe rows and one long row, and the reference's answers to them."""
    rows = prepared.task.probe_rows(prepared.max_tokens)
    started = time.monotonic()
    answers = prepared.task.answer(model, rows, _REFERENCE_BATCH, progress.step)
    per_token_s = (time.monotonic() - started) / sum(map(len, rows))
    long_row = prepared.task.long_row(_affordable_tokens(per_token_s, budget_s, prepared.max_tokens))
    longer = prepared.task.answer(model, [long_row], 1, progress.step)
    return Proof(rows=[*rows, long_row], answers=answers.joined(longer))


def _ask_held_out(model: ReferenceModel, prepared: Prepared, progress: Progress) -> Proof:
    rows = prepared.task.text_rows(held_out_texts(), min(prepared.max_tokens, LONGEST_ROW))
    return Proof(rows=rows, answers=prepared.task.answer(model, rows, _REFERENCE_BATCH, progress.step))


def _ask_retrieval(model: ReferenceModel, prepared: Prepared, retrieval: RetrievalRows, progress: Progress) -> float:
    """The reference's nDCG@10."""
    progress.stage("retrieval in transformers fp32")

    def embed(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        return prepared.task.answer(model, [list(row) for row in rows], len(rows), SilentProgress().step).vectors

    return measure_ndcg(retrieval, embed, progress.step)


def _affordable_tokens(per_token_s: float, budget_s: float, max_tokens: int) -> int:
    """Tokens of one text within the budget, halved from `max_tokens`; twice the cost a token for attention."""
    tokens = max_tokens
    while tokens > 64 and 2 * per_token_s * tokens > budget_s:
        tokens //= 2
    return tokens


def _cuda_profile(options: ExportOptions) -> CudaProfile | None:
    if options.device is not Device.CUDA:
        return None
    return CudaProfile(runtime=options.triton_release.runtime, attention=options.cuda_attention)


def _limit_batches(
    written: WrittenModel, prepared: Prepared, options: ExportOptions, progress: Progress
) -> BatchLimits:
    """The limits of a batch, which are noted with where they are from."""
    config, serving = prepared.checkpoint.config, options.serving
    if serving.max_batch_tokens is None:
        progress.stage("measuring how many tokens a batch should hold")
        budget = measure_token_budget(written, options.device, config, prepared.max_tokens)
    else:
        budget = TokenBudget(serving.max_batch_tokens, "as chosen")
    on_gpu = options.device is Device.CUDA
    attention = options.cuda_attention if on_gpu else None
    limits = limit_batches(serving, config, prepared.max_tokens, attention, budget.tokens)
    if limits.tokens is None:
        progress.note(
            f"a batch holds at most {limits.rows} rows of up to {prepared.max_tokens:,} tokens, {budget.source}"
        )
    else:
        progress.note(f"a batch holds at most {limits.tokens:,} tokens in {limits.rows} rows, {budget.source}")
    if on_gpu:
        report_memory(config, options.precision, limits, prepared.max_tokens, serving.gpu_memory_bytes, progress)
    return limits


def _read_calibration(options: ExportOptions) -> CalibrationTexts | None:
    if options.precision is Precision.INT8 and options.device is Device.CPU:
        return read_calibration(options.int8.calibration)
    if options.int8 != Int8Options():
        raise ExportError("--calibration and --max-int8-error are for --precision int8 --device cpu")
    return None


def _read_evaluation(options: ExportOptions) -> RetrievalSet | None:
    if options.evaluation.folder is not None:
        return read_retrieval_set(options.evaluation.folder)
    if options.evaluation.max_ndcg_loss is not None:
        raise ExportError("--max-ndcg-loss needs --evaluation FOLDER, a retrieval set in BEIR's layout")
    return None


def _manifest_fields(prepared: Prepared, options: ExportOptions) -> ManifestFields:
    return ManifestFields(
        max_tokens=prepared.max_tokens,
        vocabulary_size=prepared.checkpoint.config.vocabulary,
        tokenizer=TokenizerIdentity(sha256=prepared.tokenizer.sha256, origin=str(options.model)),
        precision=options.precision,
    )
