"""Checkpoint → merged → rescaled, or rotated and smoothed → graph → written → proven → renamed into the repository."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..client.contract import (
    Device,
    EmbeddingContract,
    ModelFolder,
    Precision,
    RerankContract,
    Task,
    TokenizerIdentity,
)
from .errors import ExportError, UnsupportedCheckpoint
from .graph import CudaProfile, GraphOptions
from .graph.pages import MAX_ROWS as MAX_PAGED_ROWS
from .int8.calibration import (
    CALIBRATION_TOKENS,
    LONGEST_ROW,
    CalibrationTexts,
    held_out_texts,
    read_calibration,
    spread,
)
from .int8.plan import Int8Plan, measure_rounding, plan_int8
from .int8.report import report_quantization, require_int8_error
from .options import CudaAttention, ExportOptions, Int8Options, PairTemplate, TaskChoice
from .passes.rescale import NO_RESCALE, ActivationPeaks, Rescale, check_fp16_range, choose_rescale, rescale_weights
from .progress import Progress, SilentProgress
from .proof.reference import ReferenceModel
from .proof.retrieval import RetrievalRows, measure_ndcg, report_retrieval, require_ndcg
from .proof.written_check import open_for_check
from .reading.adapter import Adapter, open_adapter
from .reading.checkpoint import Checkpoint, open_checkpoint
from .reading.cross_encoder import read_cross_encoder_settings
from .reading.retrieval_set import RetrievalSet, read_retrieval_set
from .reading.sentence_transformers import read_sentence_settings
from .reading.tokenizer import CheckpointTokenizer, read_tokenizer
from .tasks.embedding import EmbeddingTask
from .tasks.prompts import override_instruction, rerank_prompts
from .tasks.reranking import RerankTask
from .tasks.task import ContractFields, ExportTask, Proof, recognise_task
from .writing.config_pbtxt import render_config
from .writing.graph_file import write_graph
from .writing.memory import tell_memory
from .writing.staging import refuse_existing, staged_folder

DEFAULT_MAX_TOKENS = 8192
"""The model card's max_length."""
_REFERENCE_BATCH = 4
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written."""

    folder: ModelFolder
    name: str
    version: int
    contract: EmbeddingContract | RerankContract
    bytes_written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """Everything that is known before the graph is written."""

    checkpoint: Checkpoint
    tokenizer: CheckpointTokenizer
    task: ExportTask
    adapters: tuple[Adapter, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """The weights behind the passes of their precision, and what the graph must know of these."""

    checkpoint: Checkpoint
    rescale: Rescale = NO_RESCALE
    plan: Int8Plan | None = None


def export_model(options: ExportOptions, progress: Progress | None = None) -> ExportResult:
    """Writes a proven model into the repository; it appears whole or not at all.

    Raises ExportError and its kinds (see `errors`).
    """
    progress = progress or SilentProgress()
    _refuse_unfit(options)
    name = _model_name(options)
    folder = ModelFolder(options.repository / name)
    refuse_existing(folder.path, overwrite=options.overwrite)
    calibration = _read_calibration(options)
    evaluation = _read_evaluation(options)
    progress.stage(f"reading {options.model}")
    prepared = _prepare(options, progress)
    retrieval = None if evaluation is None else prepared.task.retrieval_rows(evaluation, prepared.max_tokens)
    progress.stage("computing the reference in transformers fp32")
    model = ReferenceModel(prepared.checkpoint)
    proof = _ask_reference(model, prepared, options.parity_budget_s, progress)
    held_out = None if calibration is None else _ask_held_out(model, prepared, progress)
    true_ndcg = None if retrieval is None else _ask_retrieval(model, prepared, retrieval, progress)
    del model
    form = _form_weights(prepared, options, proof.answers.peaks, calibration, progress)
    graph = GraphOptions(
        task=prepared.task.kind,
        precision=options.precision,
        max_tokens=prepared.max_tokens,
        rescale=form.rescale,
        kept=frozenset() if form.plan is None else form.plan.kept_paths,
        cuda=_cuda_profile(options),
    )
    if options.device is Device.CUDA:
        config, serving = prepared.checkpoint.config, options.serving
        tell_memory(config, options.precision, prepared.max_tokens, serving, progress)
    version = max(folder.versions(), default=0) + 1
    with staged_folder(folder.path, overwrite=options.overwrite) as content:
        staged = ModelFolder(content)
        progress.stage(f"writing {options.precision} graph")
        write_graph(form.checkpoint, staged.graph(version), graph, progress.step)
        progress.stage("comparing the written file with the reference")
        written = open_for_check(staged.graph(version), form.checkpoint, graph, content.parent, progress)
        contract = prepared.task.prove(written, proof, _contract_fields(prepared, options))
        if form.plan is not None and calibration is not None and held_out is not None:
            report = prepared.task.measure(written, held_out, _max_int8_error(prepared, options))
            require_int8_error(report)
            measured = measure_rounding(form.plan, held_out.rows, progress)
            quantization = report_quantization(
                form.plan, measured, report, calibration, staged.graph(version), prepared.max_tokens
            )
            contract = dataclasses.replace(contract, quantization=quantization)
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
            contract = dataclasses.replace(contract, retrieval=found)
        staged.tokenizer.write_bytes(prepared.tokenizer.file.read_bytes())
        staged.manifest.write_text(contract.to_json() + "\n", encoding="utf-8")
        staged.config.write_text(render_config(name, contract, options.serving, version), encoding="utf-8")
        size = sum(file.stat().st_size for file in content.rglob("*") if file.is_file())
    return ExportResult(folder=folder, name=name, version=version, contract=contract, bytes_written=size)


def _model_name(options: ExportOptions) -> str:
    name = options.name or Path(options.model.location).resolve().name
    if not _NAME.fullmatch(name):
        raise ExportError(f"'{name}' is no model name; give --name with letters, digits, '.', '_' and '-'")
    return name


def _prepare(options: ExportOptions, progress: Progress) -> _Prepared:
    checkpoint = open_checkpoint(options.model)
    tokenizer = read_tokenizer(checkpoint.directory, checkpoint.config.vocabulary)
    adapters = tuple(open_adapter(reference) for reference in options.adapters)
    task = _choose_task(checkpoint, tokenizer, adapters, options, progress)
    return _Prepared(
        checkpoint=task.merge(checkpoint, adapters),
        tokenizer=tokenizer,
        task=task,
        adapters=adapters,
        max_tokens=_max_tokens(options, checkpoint, task.stated_max_tokens),
    )


def _choose_task(
    checkpoint: Checkpoint,
    tokenizer: CheckpointTokenizer,
    adapters: tuple[Adapter, ...],
    options: ExportOptions,
    progress: Progress,
) -> ExportTask:
    recognition = recognise_task(checkpoint, tokenizer, adapters, options.task)
    if recognition.task is Task.RERANK:
        if options.task is TaskChoice.AUTO:
            progress.note(f"taken for a reranker, since {recognition.reason}; --task embed makes it an embedding model")
        settings = read_cross_encoder_settings(checkpoint.directory)
        instruction = settings.instruction if options.instruction is None else options.instruction
        return RerankTask(
            prompts=rerank_prompts(options.template or PairTemplate.LINE, instruction),
            stated_max_tokens=settings.max_tokens,
            answers=settings.answers,
            tokenizer=tokenizer,
        )
    if options.template is not None:
        raise ExportError(
            "--template is for rerankers, and this is an embedding model; give --task rerank if it is not"
        )
    if tokenizer.end_token_id is None:
        progress.note("the tokenizer appends no end token: rows end with the text's own last token")
    sentence = read_sentence_settings(checkpoint.directory)
    return EmbeddingTask(
        prompts=override_instruction(sentence.prompts, options.instruction),
        stated_max_tokens=sentence.max_tokens,
        tokenizer=tokenizer,
        hidden=checkpoint.config.hidden,
    )


def _max_tokens(options: ExportOptions, checkpoint: Checkpoint, stated: int | None) -> int:
    positions = checkpoint.config.max_positions
    chosen = options.max_tokens or min(stated or DEFAULT_MAX_TOKENS, DEFAULT_MAX_TOKENS, positions)
    if not 2 <= chosen <= positions:
        raise UnsupportedCheckpoint(f"--max-tokens {chosen}: must be 2 to {positions}, the model's positions")
    window = checkpoint.config.sliding_window
    if window is not None and chosen > window:
        raise UnsupportedCheckpoint(
            f"{checkpoint.source}: layers attend to a sliding window of {window} tokens, which is not supported; "
            f"give --max-tokens {window} or less, where the window makes no difference"
        )
    return chosen


def _ask_reference(model: ReferenceModel, prepared: _Prepared, budget_s: float, progress: Progress) -> Proof:
    """The probe rows and one long row, and the reference's answers to them."""
    rows = prepared.task.probe_rows(prepared.max_tokens)
    started = time.monotonic()
    answers = prepared.task.answer(model, rows, _REFERENCE_BATCH, progress.step)
    per_token_s = (time.monotonic() - started) / sum(map(len, rows))
    long_row = prepared.task.long_row(_affordable_tokens(per_token_s, budget_s, prepared.max_tokens))
    longer = prepared.task.answer(model, [long_row], 1, progress.step)
    return Proof(rows=[*rows, long_row], answers=answers.joined(longer))


def _ask_held_out(model: ReferenceModel, prepared: _Prepared, progress: Progress) -> Proof:
    rows = prepared.task.text_rows(held_out_texts(), min(prepared.max_tokens, LONGEST_ROW))
    return Proof(rows=rows, answers=prepared.task.answer(model, rows, _REFERENCE_BATCH, progress.step))


def _ask_retrieval(model: ReferenceModel, prepared: _Prepared, retrieval: RetrievalRows, progress: Progress) -> float:
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


def _refuse_unfit(options: ExportOptions) -> None:
    """Raises ExportError for options that do not go together."""
    if options.device is Device.CPU and options.precision is Precision.BF16:
        raise ExportError("--precision bf16 needs --device cuda; on a CPU fp32, fp16 and int8 run")
    rows = options.serving.max_batch_rows
    if options.device is Device.CUDA and options.cuda_attention is CudaAttention.PAGES and rows > MAX_PAGED_ROWS:
        raise ExportError(
            f"--max-batch-rows {rows}: attention over pages takes at most {MAX_PAGED_ROWS} rows; "
            "give fewer or --attention rows"
        )


def _cuda_profile(options: ExportOptions) -> CudaProfile | None:
    if options.device is not Device.CUDA:
        return None
    return CudaProfile(runtime=options.triton_release.runtime, attention=options.cuda_attention)


def _computes_in_fp16(options: ExportOptions) -> bool:
    """Whether activations may overflow."""
    blocks = options.device is Device.CUDA and options.precision is Precision.INT8
    return blocks or options.precision is Precision.FP16


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


def _max_int8_error(prepared: _Prepared, options: ExportOptions) -> float:
    return prepared.task.int8_max_error if options.int8.max_error is None else options.int8.max_error


def _form_weights(
    prepared: _Prepared,
    options: ExportOptions,
    peaks: ActivationPeaks,
    calibration: CalibrationTexts | None,
    progress: Progress,
) -> _Form:
    """The weights as their precision takes them."""
    if calibration is not None:
        return _form_int8(prepared, calibration, _max_int8_error(prepared, options), progress)
    if not _computes_in_fp16(options):
        return _Form(checkpoint=prepared.checkpoint)
    rescale = choose_rescale(peaks)
    if rescale != NO_RESCALE:
        progress.note(f"rescaled against overflow: residual 2^-{rescale.residual}, MLP 2^-{rescale.intermediate}")
    rescaled = prepared.checkpoint.with_weights(rescale_weights(prepared.checkpoint.weights, rescale))
    check_fp16_range(rescaled.weights)
    return _Form(checkpoint=rescaled, rescale=rescale)


def _form_int8(prepared: _Prepared, calibration: CalibrationTexts, max_error: float, progress: Progress) -> _Form:
    texts = prepared.task.text_rows(calibration.texts, min(prepared.max_tokens, LONGEST_ROW))
    limit = prepared.task.cosine_limit(max_error)
    plan = plan_int8(prepared.checkpoint, spread(texts, CALIBRATION_TOKENS), limit, progress)
    if plan.kept:
        names = ", ".join(path for group in plan.kept for path in group.paths)
        progress.note(f"kept in fp32, {plan.kept_share:.1%} of the multiply-adds: {names}")
    return _Form(checkpoint=plan.checkpoint, plan=plan)


def _contract_fields(prepared: _Prepared, options: ExportOptions) -> ContractFields:
    return ContractFields(
        max_tokens=prepared.max_tokens,
        vocabulary_size=prepared.checkpoint.config.vocabulary,
        tokenizer=TokenizerIdentity(sha256=prepared.tokenizer.sha256, origin=str(options.model)),
        precision=options.precision,
        device=options.device,
        triton_release=options.triton_release if options.device is Device.CUDA else None,
        checkpoint=prepared.checkpoint.identity(),
        adapters=tuple(adapter.identity() for adapter in prepared.adapters),
    )
