"""Estimates of the GPU memory that a model needs."""

from __future__ import annotations

from dataclasses import dataclass

from ..architectures import DecoderConfig
from ..batching.limits import BatchLimits
from ..formats import WeightFormat
from ..graph.pages import PAGE
from ..options import ServingOptions
from ..progress import Progress

_LIBRARIES = 64 << 20
"""Bytes of cuBLAS workspace and one-time allocations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Memory of one instance on a GPU in bytes, without the CUDA context (a few hundred MB)."""

    weights: int
    workspace: int
    """Peak during one batch."""
    batch_tokens: int
    """Tokens of that batch."""

    @property
    def total(self) -> int:
        """Weights and workspace."""
        return self.weights + self.workspace


def estimate_memory(
    config: DecoderConfig, format: WeightFormat, tokens: int, cells: int | None = None, paged_rows: int = 0
) -> MemoryEstimate:
    """Estimate the memory of a batch of `tokens` tokens.

    The peak is in attention or in the MLP, whichever has larger live tensors.

    Args:
        config: Shape of the model.
        format: Weight format.
        tokens: Tokens of the batch.
        cells: Cells of its right-padded rows; None if nothing is padded.
        paged_rows: Rows of a batch with attention over pages, whose keys and values are kept for all layers.
    """
    size, cells = format.activation_bytes, cells or tokens
    qkv_width = config.query_width + 2 * config.kv_width
    pages = tokens // PAGE + paged_rows if paged_rows else 0
    caches = 2 * pages * PAGE * config.kv_width
    # residual and normed stream, heads before and after norm and rope; in rows, with keys and values once more, context
    attention = tokens * (2 * config.hidden + 2 * qkv_width) + cells * (
        qkv_width + 2 * config.kv_width + config.query_width
    )
    # residual and normed stream; gate, up, silu and their product
    mlp = tokens * (2 * config.hidden + 4 * config.intermediate)
    workspace = size * (max(attention, mlp) + caches) + format.workspace_bytes(config)
    return MemoryEstimate(
        weights=format.weight_bytes(config),
        workspace=workspace + _LIBRARIES,
        batch_tokens=tokens,
    )


def report_memory(
    config: DecoderConfig,
    format: WeightFormat,
    limits: BatchLimits,
    max_tokens: int,
    serving: ServingOptions,
    progress: Progress,
) -> None:
    """Report the memory of the largest batch and of the longest text, and whether both fit `gpu_memory_bytes`."""
    gpu_memory_bytes = serving.gpu_memory_bytes
    largest = limits.tokens or limits.rows * max_tokens
    paged = limits.cells is None
    batch = estimate_memory(config, format, largest, limits.cells, paged_rows=limits.rows if paged else 0)
    longest = estimate_memory(config, format, max_tokens, paged_rows=1 if paged else 0)
    progress.note(
        f"GPU memory: weights {batch.weights / 1e9:.1f} GB, workspace {batch.workspace / 1e9:.1f} GB for a batch of "
        f"{largest:,} tokens, {longest.workspace / 1e9:.1f} GB for one text of {max_tokens:,}"
    )
    if gpu_memory_bytes is not None and gpu_memory_bytes < max(batch.total, longest.total):
        progress.note(
            f"the largest batch does not fit into gpu_memory_bytes, {gpu_memory_bytes / 1e9:.1f} GB, and will fail; "
            "use a larger limit, or fewer max_batch_tokens"
        )
