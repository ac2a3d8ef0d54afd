"""Open the sources of an export and choose its task, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..client.manifest import Task, fill_template
from .errors import ExportError, UnsupportedCheckpointError
from .option_checks import check_device
from .options import ExportOptions, PairTemplate, TaskChoice
from .passes.resized_vocabulary import resize_vocabulary
from .progress import Progress
from .sources.adapter import Adapter, open_adapter
from .sources.chat_template import read_pair_prompts, states_pair_template
from .sources.checkpoint import Checkpoint, open_checkpoint
from .sources.cross_encoder import read_cross_encoder_settings
from .sources.head_modules import read_head
from .sources.modules import MODULES_FILE
from .sources.precedence import reject_adapter_beside_weights, setting_files
from .sources.sentence_transformers import (
    DEFAULT_INSTRUCTION,
    MODEL_CARD,
    StatedLength,
    is_qwen3_embedding,
    read_sentence_settings,
)
from .sources.setting_files import SettingFiles
from .sources.tokenizer import TOKENIZER_FILE, CheckpointTokenizer, read_tokenizer
from .sources.trained_base import describe_other_base, other_bases
from .tasks.embedding import EmbeddingTask
from .tasks.prompts import override_instruction, override_templates, rerank_prompts
from .tasks.reranking import RerankTask
from .tasks.task import ExportTask, recognise_task

DEFAULT_MAX_TOKENS = 8192
"""`max_length` in the code of Qwen3-Embedding's model card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSources:
    """A checkpoint with its adapters merged, its tokenizer and its task."""

    checkpoint: Checkpoint
    tokenizer: CheckpointTokenizer
    task: ExportTask
    adapters: tuple[Adapter, ...]
    max_tokens: int
    origins: Mapping[str, str]
    """What was read → where it is from."""


def open_sources(options: ExportOptions, progress: Progress) -> ModelSources:
    """Open checkpoint, tokenizer and adapters, and choose the task; raise ExportError or a subclass."""
    adapters = tuple(open_adapter(reference) for reference in options.adapters)
    checkpoint = resize_vocabulary(open_checkpoint(options.model), adapters)
    reject_adapter_beside_weights(checkpoint, adapters)
    bases = other_bases(checkpoint, adapters)
    for adapter, base in bases.items():
        progress.note(describe_other_base(adapter, base, checkpoint))
    if checkpoint.unknown_settings:
        progress.note(
            f"config.json has settings that are not known to be neutral and are not applied: "
            f"{', '.join(sorted(checkpoint.unknown_settings))}"
        )
    dequantization = checkpoint.describe_dequantization()
    if dequantization is not None:
        progress.note(dequantization)
    files = setting_files(checkpoint, adapters)
    tokenizer = read_tokenizer(_tokenizer_folder(checkpoint, files), checkpoint.config.vocabulary)
    task = _choose_task(checkpoint, files, tokenizer, adapters, options, progress)
    merged = task.merge(checkpoint, adapters)
    check_device(options, merged)
    return ModelSources(
        checkpoint=merged,
        tokenizer=tokenizer,
        task=task,
        adapters=adapters,
        max_tokens=_max_tokens(options, checkpoint, task.length),
        origins=_origins(options, merged, adapters, files, tokenizer, task)
        | {f"base of adapter {adapter}": base for adapter, base in bases.items()},
    )


def _tokenizer_folder(checkpoint: Checkpoint, files: SettingFiles) -> Path:
    found = files.find(TOKENIZER_FILE) or files.find("vocab.json")
    return checkpoint.directory if found is None else found.parent


def _choose_task(
    checkpoint: Checkpoint,
    files: SettingFiles,
    tokenizer: CheckpointTokenizer,
    adapters: tuple[Adapter, ...],
    options: ExportOptions,
    progress: Progress,
) -> ExportTask:
    recognition = recognise_task(checkpoint, files, tokenizer, adapters, options.task)
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
        return _open_reranker(checkpoint, files, tokenizer, options, progress)
    return _open_embedding(checkpoint, files, tokenizer, adapters, options, progress)


def _open_reranker(
    checkpoint: Checkpoint,
    files: SettingFiles,
    tokenizer: CheckpointTokenizer,
    options: ExportOptions,
    progress: Progress,
) -> RerankTask:
    if options.query_template is not None or options.document_template is not None:
        raise ExportError("query and document templates are for embedding models, and this is a reranker")
    settings = read_cross_encoder_settings(files)
    instruction = settings.instruction if options.instruction is None else options.instruction
    own = settings.answers is not None and states_pair_template(tokenizer.chat_template)
    if own and options.template is None:
        prompts = read_pair_prompts(tokenizer.official, tokenizer.plain, instruction, str(checkpoint.source))
        origin: str | Path = files.find("chat_template.jinja") or tokenizer.file.with_name("tokenizer_config.json")
        progress.note(f"pairs are formatted by the chat template in {tokenizer.file.parent}")
    else:
        prompts = rerank_prompts(options.template or PairTemplate.LINE, instruction or DEFAULT_INSTRUCTION)
        origin = "the model card of Qwen3-Reranker"
    return RerankTask(
        prompts=prompts,
        sets_prompts=not own or options.instruction is not None or options.template is not None,
        prompts_origin=origin,
        length=settings.length,
        answers=settings.answers,
        tokenizer=tokenizer,
    )


def _open_embedding(
    checkpoint: Checkpoint,
    files: SettingFiles,
    tokenizer: CheckpointTokenizer,
    adapters: Sequence[Adapter],
    options: ExportOptions,
    progress: Progress,
) -> EmbeddingTask:
    if options.template is not None:
        raise ExportError(
            "a pair template applies to rerankers, and this is an embedding model; set the task to rerank if it is not"
        )
    if tokenizer.end_token_id is None:
        asked = " and ".join(tokenizer.unheeded_additions)
        cause = f", although tokenizer_config.json has {asked}; transformers ignores that, too" if asked else ""
        progress.note(f"the tokenizer appends no end token: rows end with the text's own last token{cause}")
    names = [str(checkpoint.source), checkpoint.root.resolve().name, checkpoint.raw_config.get("_name_or_path")]
    known = is_qwen3_embedding(*names, *(adapter.base_name for adapter in adapters))
    sentence = read_sentence_settings(
        files, is_qwen3_embedding=known and checkpoint.config.architecture.official_prompts
    )
    head = read_head(files, checkpoint.config)
    prompts = override_instruction(
        override_templates(sentence.prompts, options.query_template, options.document_template), options.instruction
    )
    origin = "options" if prompts != sentence.prompts else sentence.prompts_origin
    example = fill_template(prompts.query, text="how tall is it?", instruction=prompts.default_instruction or "")
    progress.note(f"prompts ({origin}): a query becomes {example!r}, a document {prompts.document!r}")
    return EmbeddingTask(
        prompts=prompts,
        sets_prompts=prompts != sentence.prompts or sentence.prompts_origin == MODEL_CARD,
        prompts_origin=origin,
        length=sentence.length,
        tokenizer=tokenizer,
        head=head,
        dimension=head.width(checkpoint.config.hidden),
    )


def _origins(
    options: ExportOptions,
    checkpoint: Checkpoint,
    adapters: Sequence[Adapter],
    files: SettingFiles,
    tokenizer: CheckpointTokenizer,
    task: ExportTask,
) -> dict[str, str]:
    """Return where tokenizer, modules, prompts and length limit are from."""

    def describe(found: str | Path | None, otherwise: str) -> str:
        if not isinstance(found, Path):
            return found or otherwise
        for adapter in adapters:
            if found.is_relative_to(adapter.root):
                return f"{found.relative_to(adapter.root)} of adapter {adapter.reference.source}"
        return f"{found.relative_to(checkpoint.root)} of {checkpoint.source}"

    limit = None if task.length is None or task.length.tokens > DEFAULT_MAX_TOKENS else task.length.file
    form = checkpoint.quantized_as
    return ({} if form is None else {"weights": f"dequantized from {form.name}"}) | {
        "tokenizer": describe(tokenizer.file, str(checkpoint.source)),
        "modules": describe(files.find(MODULES_FILE), f"none stated: {checkpoint.head.pooling.label}"),
        "prompts": describe(task.prompts_origin, "none stated"),
        "max_tokens": "options" if options.max_tokens else describe(limit, "default"),
    }


def _max_tokens(options: ExportOptions, checkpoint: Checkpoint, length: StatedLength | None) -> int:
    positions, stated = checkpoint.config.max_positions, DEFAULT_MAX_TOKENS if length is None else length.tokens
    chosen = options.max_tokens or min(stated, DEFAULT_MAX_TOKENS, positions)
    if not 2 <= chosen <= positions:
        raise UnsupportedCheckpointError(f"max_tokens {chosen}: must be 2 to {positions}, the model's positions")
    window = checkpoint.config.sliding_window
    if window is not None and chosen > window:
        raise UnsupportedCheckpointError(
            f"{checkpoint.source}: layers attend to a sliding window of {window} tokens, which is not supported; "
            f"use max_tokens {window} or less, where the window makes no difference"
        )
    return chosen
