"""What is known of an export before anything is computed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..client.manifest import Device, Precision, Task
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
"""The model card's max_length."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that is known before the graph is written."""

    checkpoint: Checkpoint
    tokenizer: CheckpointTokenizer
    task: ExportTask
    adapters: tuple[Adapter, ...]
    max_tokens: int


def refuse_unfit(options: ExportOptions) -> None:
    """Raises ExportError for options that do not go together."""
    if options.device is Device.CPU and options.precision is Precision.BF16:
        raise ExportError("--precision bf16 needs --device cuda; on a CPU fp32, fp16 and int8 run")
    rows = options.serving.max_batch_rows
    if options.device is Device.CUDA and options.cuda_attention is CudaAttention.PAGES and rows > MAX_PAGED_ROWS:
        raise ExportError(
            f"--max-batch-rows {rows}: attention over pages takes at most {MAX_PAGED_ROWS} rows; "
            "give fewer or --attention rows"
        )


def model_name(options: ExportOptions) -> str:
    """The folder of the model in its repository; raises ExportError where it is no name."""
    name = options.name or Path(options.model.location).resolve().name
    if not _NAME.fullmatch(name):
        raise ExportError(f"'{name}' is not a valid model name; give --name with letters, digits, '.', '_' and '-'")
    return name


def prepare(options: ExportOptions, progress: Progress) -> Prepared:
    """Opens the sources and decides on the task; raises ExportError and its kinds."""
    checkpoint = open_checkpoint(options.model)
    tokenizer = read_tokenizer(checkpoint.directory, checkpoint.config.vocabulary)
    adapters = tuple(open_adapter(reference) for reference in options.adapters)
    task = _choose_task(checkpoint, tokenizer, adapters, options, progress)
    return Prepared(
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
            progress.note(
                f"exporting a reranker, because {recognition.reason}; --task embed exports an embedding model"
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
        raise UnsupportedCheckpointError(f"--max-tokens {chosen}: must be 2 to {positions}, the model's positions")
    window = checkpoint.config.sliding_window
    if window is not None and chosen > window:
        raise UnsupportedCheckpointError(
            f"{checkpoint.source}: layers attend to a sliding window of {window} tokens, which is not supported; "
            f"give --max-tokens {window} or less, where the window makes no difference"
        )
    return chosen
