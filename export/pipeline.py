"""Checkpoint → merged → rescaled → graph → written → proven → renamed into the repository."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from ..client.contract import (
    EmbeddingContract,
    ModelFolder,
    ParityReport,
    Precision,
    TokenizerIdentity,
)
from .adapter import Adapter, open_adapter
from .checkpoint import Checkpoint, open_checkpoint
from .config_pbtxt import render_config
from .errors import ExportError, UnsupportedCheckpoint
from .graph import GraphOptions, build_model
from .merge import merge_adapters
from .onnx_file import write_onnx
from .options import ExportOptions
from .parity import measure_parity, require_parity
from .probe import PROBE_TEXTS, long_text
from .progress import Progress, SilentProgress
from .prompts import override_instruction
from .reference import ReferenceAnswers, ReferenceModel, transformers_config
from .rescale import NO_RESCALE, Rescale, check_fp16_range, choose_rescale, rescale_weights
from .rope import compute_rope_tables
from .runtime import WrittenModel
from .sentence_transformers import SentenceSettings, read_sentence_settings
from .staging import refuse_existing, staged_folder
from .task import require_embedding
from .tokenizer import CheckpointTokenizer, read_tokenizer

DEFAULT_MAX_TOKENS = 8192
"""The model card's max_length."""
SMALLEST_DIMENSION = 32
"""Smallest Matryoshka dimension of the Qwen3-Embedding family."""
_REFERENCE_BATCH = 4
_LONG_SHARE_TOKENS = 16
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written."""

    folder: ModelFolder
    name: str
    version: int
    contract: EmbeddingContract
    bytes_written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """Everything that is known before the graph is written."""

    checkpoint: Checkpoint
    tokenizer: CheckpointTokenizer
    settings: SentenceSettings
    adapters: tuple[Adapter, ...]
    max_tokens: int


def export_model(options: ExportOptions, progress: Progress | None = None) -> ExportResult:
    """Writes a proven model into the repository; it appears whole or not at all.

    Raises ExportError and its kinds (see `errors`).
    """
    progress = progress or SilentProgress()
    if options.precision is Precision.BF16:
        raise ExportError("--precision bf16 is for GPUs, which this command does not export for; give fp32 or fp16")
    name = _model_name(options)
    folder = ModelFolder(options.repository / name)
    refuse_existing(folder.path, overwrite=options.overwrite)
    progress.stage(f"reading {options.model}")
    prepared = _prepare(options, progress)
    progress.stage("computing the reference in transformers fp32")
    rows, answers = _reference_answers(prepared, options.parity_budget_s, progress)
    rescale = choose_rescale(answers.peaks) if options.precision is Precision.FP16 else NO_RESCALE
    if rescale != NO_RESCALE:
        progress.note(f"rescaled against overflow: residual 2^-{rescale.residual}, MLP 2^-{rescale.intermediate}")
    checkpoint = _for_precision(prepared.checkpoint, options.precision, rescale)
    version = max(folder.versions(), default=0) + 1
    with staged_folder(folder.path, overwrite=options.overwrite) as content:
        staged = ModelFolder(content)
        progress.stage(f"writing {options.precision} graph")
        _write_graph(checkpoint, staged.graph(version), options.precision, prepared.max_tokens, rescale, progress)
        progress.stage("comparing the written file with the reference")
        parity = measure_parity(WrittenModel(staged.graph(version)), rows, answers.vectors, options.precision)
        require_parity(parity)
        contract = _contract(prepared, options, parity)
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
    settings = read_sentence_settings(checkpoint.directory)
    require_embedding(checkpoint, tokenizer, options.task)
    if tokenizer.end_token_id is None:
        progress.note("the tokenizer appends no end token: rows end with the text's own last token")
    max_tokens = _max_tokens(options, checkpoint, settings)
    adapters = tuple(open_adapter(reference) for reference in options.adapters)
    return _Prepared(
        checkpoint=checkpoint.with_weights(merge_adapters(checkpoint.weights, adapters)),
        tokenizer=tokenizer,
        settings=settings,
        adapters=adapters,
        max_tokens=max_tokens,
    )


def _max_tokens(options: ExportOptions, checkpoint: Checkpoint, settings: SentenceSettings) -> int:
    positions = checkpoint.config.max_positions
    chosen = options.max_tokens or min(settings.max_tokens or DEFAULT_MAX_TOKENS, DEFAULT_MAX_TOKENS, positions)
    if not 2 <= chosen <= positions:
        raise UnsupportedCheckpoint(f"--max-tokens {chosen}: must be 2 to {positions}, the model's positions")
    window = checkpoint.config.sliding_window
    if window is not None and chosen > window:
        raise UnsupportedCheckpoint(
            f"{checkpoint.source}: layers attend to a sliding window of {window} tokens, which is not supported; "
            f"give --max-tokens {window} or less, where the window makes no difference"
        )
    return chosen


def _reference_answers(
    prepared: _Prepared, budget_s: float, progress: Progress
) -> tuple[list[list[int]], ReferenceAnswers]:
    """The probe texts' token rows, longest last, and the reference's answers to them."""
    model = ReferenceModel(prepared.checkpoint)
    texts = [_fill_prompt(prepared, text) for text in PROBE_TEXTS] + list(PROBE_TEXTS)
    rows = [row for row in prepared.tokenizer.rows(texts, prepared.max_tokens) if row]
    started = time.monotonic()
    answers = model.embed(rows, _REFERENCE_BATCH, progress.step)
    per_token_s = (time.monotonic() - started) / sum(map(len, rows))
    longest = max(_affordable_tokens(per_token_s, budget_s, prepared.max_tokens), 2)
    long_rows = prepared.tokenizer.rows([long_text(longest // _LONG_SHARE_TOKENS * 4 + 4)], longest)
    longer = model.embed(long_rows, 1, progress.step)
    return rows + long_rows, answers.joined(longer)


def _fill_prompt(prepared: _Prepared, text: str) -> str:
    prompts = prepared.settings.prompts
    return prompts.query.replace("{instruction}", prompts.default_instruction or "").replace("{text}", text)


def _affordable_tokens(per_token_s: float, budget_s: float, max_tokens: int) -> int:
    """Tokens of one text within the budget, halved from `max_tokens`; twice the cost a token for attention."""
    tokens = max_tokens
    while tokens > 64 and 2 * per_token_s * tokens > budget_s:
        tokens //= 2
    return tokens


def _for_precision(checkpoint: Checkpoint, precision: Precision, rescale: Rescale) -> Checkpoint:
    if precision is not Precision.FP16:
        return checkpoint
    rescaled = checkpoint.with_weights(rescale_weights(checkpoint.weights, rescale))
    check_fp16_range(rescaled.weights)
    return rescaled


def _write_graph(
    checkpoint: Checkpoint,
    file: Path,
    precision: Precision,
    max_tokens: int,
    rescale: Rescale,
    progress: Progress,
) -> None:
    rope = compute_rope_tables(transformers_config(checkpoint.raw_config, checkpoint.config.rope), max_tokens)
    options = GraphOptions(precision=precision, max_tokens=max_tokens, rescale=rescale)
    model = build_model(checkpoint.config, checkpoint.weights, rope, options)
    file.parent.mkdir(parents=True)
    write_onnx(model, file, progress.step)


def _contract(prepared: _Prepared, options: ExportOptions, parity: ParityReport) -> EmbeddingContract:
    config = prepared.checkpoint.config
    return EmbeddingContract(
        dimension=config.hidden,
        min_dimension=min(SMALLEST_DIMENSION, config.hidden),
        max_tokens=prepared.max_tokens,
        vocabulary_size=config.vocabulary,
        end_token_id=prepared.tokenizer.end_token_id,
        prompts=override_instruction(prepared.settings.prompts, options.instruction),
        tokenizer=TokenizerIdentity(sha256=prepared.tokenizer.sha256, origin=str(options.model)),
        precision=options.precision,
        checkpoint=prepared.checkpoint.identity(),
        adapters=tuple(adapter.identity() for adapter in prepared.adapters),
        parity=parity,
    )
