"""Choices that follow from the options alone, and options that cannot be combined."""

from __future__ import annotations

import re
from pathlib import Path

from ..client.manifest import Device
from .errors import ExportError, UnsupportedCheckpointError
from .graph.cuda_profile import faster_attention
from .graph.pages import MAX_ROWS as MAX_PAGED_ROWS
from .options import CudaAttention, ExportOptions, ServingOptions, WitnessChoice
from .sources.checkpoint import Checkpoint
from .sources.embedding_head import LAST_TOKEN_HEAD, EmbeddingHead

_LARGEST_QUEUE = 2**32 - 1
"""`max_queue_size` is an uint32 in Triton's configuration."""
_LONGEST_TIMEOUT_MS = 86_400_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def chosen_attention(options: ExportOptions, head: EmbeddingHead = LAST_TOKEN_HEAD) -> CudaAttention:
    """Return the attention of a GPU model over batches of mixed lengths. The mean of a row is a sum over its cells."""
    if options.cuda_attention is None and head.pooling.reads_every_token:
        return CudaAttention.ROWS
    return options.cuda_attention or faster_attention(options.triton_release.runtime)


def check_device(options: ExportOptions, checkpoint: Checkpoint) -> None:
    """Raise UnsupportedCheckpointError if there is no graph for the device that computes the checkpoint."""
    if (options.further_instructions or options.prefixes) and not checkpoint.has_fixed_prefixes:
        raise UnsupportedCheckpointError(
            f"{checkpoint.source}: with mean pooling or bidirectional attention, nothing of a prompt is stored; leave "
            "further instructions and prefixes out"
        )
    if options.device is not Device.CUDA:
        return
    if not checkpoint.config.causal:
        raise UnsupportedCheckpointError(
            f"{checkpoint.source}: is_causal is false, and attention on device cuda is causal; use device cpu"
        )
    if checkpoint.head.pooling.reads_every_token and options.cuda_attention is CudaAttention.PAGES:
        raise UnsupportedCheckpointError(
            f"{checkpoint.source}: {checkpoint.head.pooling.label} is not supported with attention over pages; "
            "use attention over rows"
        )


def check_options(options: ExportOptions) -> None:
    """Raise ExportError if options cannot be combined."""
    if options.keep_versions < 1:
        raise ExportError(f"keep_versions is {options.keep_versions}; it must be at least 1, the new version")
    rows = options.serving.max_batch_rows or 0
    if options.device is Device.CUDA and chosen_attention(options) is CudaAttention.PAGES and rows > MAX_PAGED_ROWS:
        raise ExportError(
            f"max_batch_rows {rows}: attention over pages supports at most {MAX_PAGED_ROWS} rows; "
            "use fewer rows, or attention over rows"
        )
    _check_queue(options.serving)
    _check_prefixes(options)
    if not options.verify.compares:
        _reject_comparisons(options)


def _check_prefixes(options: ExportOptions) -> None:
    stored = {"further instructions": options.further_instructions, "prefixes": options.prefixes}
    for name, given in stored.items():
        if given and not (options.prefix_reuse and options.device is Device.CPU):
            raise ExportError(
                f"{name} only choose what a model for device cpu stores for reuse: leave them out; the model computes "
                "any prompt without them"
            )


def _check_queue(serving: ServingOptions) -> None:
    size, timeout_ms = serving.max_queue_size, serving.queue_timeout_ms
    if size is not None and not 1 <= size <= _LARGEST_QUEUE:
        raise ExportError(f"max_queue_size {size}: must be from 1 to {_LARGEST_QUEUE}, or None for no limit")
    if timeout_ms is None:
        return
    if not 1 <= timeout_ms <= _LONGEST_TIMEOUT_MS:
        raise ExportError(
            f"queue_timeout_ms {timeout_ms}: must be from 1 to {_LONGEST_TIMEOUT_MS} (a day), or None for no limit"
        )
    if 1000 * timeout_ms <= serving.queue_delay_us:
        raise ExportError(
            f"queue_timeout_ms {timeout_ms}: requests would be rejected before they have waited queue_delay_us "
            f"{serving.queue_delay_us} for others; use a longer timeout or a shorter delay"
        )


def _reject_comparisons(options: ExportOptions) -> None:
    """Raise ExportError if options need the reference, which is not computed without verification."""
    needs_reference = {
        f"the witness {options.witness}": options.witness not in (WitnessChoice.AUTO, WitnessChoice.NONE),
        "an evaluation": options.evaluation.folder is not None,
        "max_error of int8": options.int8.max_error is not None,
    }
    for option, chosen in needs_reference.items():
        if chosen:
            raise ExportError(
                f"{option} needs the comparison with transformers, and verify is none; "
                "leave it out, or verify quick or full"
            )


def model_name(options: ExportOptions) -> str:
    """Return the name of the model's folder in the repository; raise ExportError if it is not valid."""
    name = options.name or Path(options.model.location).resolve().name
    if not _NAME.fullmatch(name):
        raise ExportError(f"'{name}' is not a valid model name; use letters, digits, '.', '_' and '-'")
    return name
