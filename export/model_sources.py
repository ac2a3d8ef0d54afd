"""Open the sources of an export and choose its task, before anything is computed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..client.manifest import Device, Task
from .errors import ExportError, UnsupportedCheckpointError
from .graph.pages import MAX_ROWS as MAX_PAGED_ROWS
from .options import CudaAttention, ExportOptions, PairTemplate, TaskChoice
from .progress import Progress
from .sources.adapter import Adapter, open_adapter
from .sources.checkpoint import Checkpoint, open_checkpoint
from .sources.cross_encoder import read_cross_encoder_settings
from .sources.sentence_transformers import read_sentence_settings
from .sources.tokenizer import CheckpointTokenizer, read_tokenizer
from .tasks.embedding import EmbeddingTask
from .tasks.prompts import override_instruction, rerank_prompts
from .tasks.reranking import RerankTask
from .tasks.task import ExportTask, recognise_task

DEFAULT_MAX_TOKENS = 8192
"""`max_length` in the code of Qwen3-Embedding's model card."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSources:
    """A checkpoint with its adapters merged, its tokenizer and its task."""

    checkpoint: Checkpoint
    tokenizer: CheckpointTokenizer
    task: ExportTask
    adapters: tuple[Adapter, ...]
    max_tokens: int


def check_options(options: ExportOptions) -> None:
    """Raise ExportError if options cannot be combined."""
    rows = options.serving.max_batch_rows
    if options.device is Device.CUDA and options.cuda_attention is CudaAttention.PAGES and rows > MAX_PAGED_ROWS:
        raise ExportError(
            f"max_batch_rows {rows}: attention over pages supports at most {MAX_PAGED_ROWS} rows; "
            "use fewer rows, or attention over rows"
        )


def model_name(options: ExportOptions) -> str:
    """Return the name of the model's folder in the repository; raise ExportError if it is not valid."""
    name = options.name or Path(options.model.location).resolve().name
    if not _NAME.fullmatch(name):
        raise ExportError(f"'{name}' is not a valid model name; use letters, digits, '.', '_' and '-'")
    return name


def open_sources(options: ExportOptions, progress: Progress) -> ModelSources:
    """Open checkpoint, tokenizer and adapters, and choose the task; raise ExportError or a subclass."""
    checkpoint = open_checkpoint(options.model)
    tokenizer = read_tokenizer(checkpoint.directory, checkpoint.config.vocabulary)
    adapters = tuple(open_adapter(reference) for reference in options.adapters)
    task = _choose_task(checkpoint, tokenizer, adapters, options, progress)
    return ModelSources(
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
    architecture = checkpoint.config.architecture
    if recognition.task is Task.RERANK:
        if not architecture.official_prompts:
            raise UnsupportedCheckpointError(
                f"{checkpoint.source}: {architecture.name} models are supported for embeddings only, because "
                "Qwen3-Reranker's template does not apply to them; set the task to embed"
            )
        if options.task is TaskChoice.AUTO:
            progress.note(
                f"exporting a reranker, because {recognition.reason}; set the task to embed for an embedding model"
            )
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
            "a pair template applies to rerankers, and this is an embedding model; set the task to rerank if it is not"
        )
    if tokenizer.end_token_id is None:
        progress.note("the tokenizer appends no end token: rows end with the text's own last token")
    sentence = read_sentence_settings(checkpoint.directory, architecture)
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
        raise UnsupportedCheckpointError(f"max_tokens {chosen}: must be 2 to {positions}, the model's positions")
    window = checkpoint.config.sliding_window
    if window is not None and chosen > window:
        raise UnsupportedCheckpointError(
            f"{checkpoint.source}: layers attend to a sliding window of {window} tokens, which is not supported; "
            f"use max_tokens {window} or less, where the window makes no difference"
        )
    return chosen
