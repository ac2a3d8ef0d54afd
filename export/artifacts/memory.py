"""How much GPU memory a model takes, reported before anything is deployed."""

from __future__ import annotations

from dataclasses import dataclass

from ..architectures import DecoderConfig
from ..batching.limits import BatchLimits
from ..formats import WeightFormat
from ..progress import Progress

_LIBRARIES = 64 << 20
"""cuBLAS's workspace and what is allocated once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes of one instance on a GPU, without CUDA's own context (a few hundred MB)."""

    weights: int
    workspace: int
    """At the peak of one batch."""
    batch_tokens: int

    @property
    def total(self) -> int:
        """Weights and workspace."""
        return self.weights + self.workspace


def estimate_memory(
    config: DecoderConfig, format: WeightFormat, tokens: int, cells: int | None = None
) -> MemoryEstimate:
    """Return what a batch of `tokens` tokens takes, whose right-padded rows have `cells` cells, or no padding.

    The peak is in attention or in the MLP, whichever holds more live tensors at once.
    """
    size, cells = format.activation_bytes, cells or tokens
    attended = config.query_width + 2 * config.kv_width
    # the residual stream, packed and split heads; padded and rotated heads, the caches that come out, and the answer
    attention = tokens * (config.hidden + 2 * attended) + cells * (
        2 * attended + 2 * config.kv_width + config.query_width
    )
    # the residual stream; gate and up in one, and split
    mlp = tokens * (config.hidden + 4 * config.intermediate)
    workspace = size * max(attention, mlp) + format.workspace_bytes(config)
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
    gpu_memory_bytes: int | None,
    progress: Progress,
) -> None:
    """Note what the largest batch and the longest text take, and whether both fit the limit."""
    largest = limits.tokens or limits.rows * max_tokens
    batch = estimate_memory(config, format, largest, limits.cells)
    longest = estimate_memory(config, format, max_tokens)
    progress.note(
        f"GPU memory: weights {batch.weights / 1e9:.1f} GB, workspace {batch.workspace / 1e9:.1f} GB for a batch of "
        f"{largest:,} tokens, {longest.workspace / 1e9:.1f} GB for one text of {max_tokens:,}"
    )
    if gpu_memory_bytes is not None and gpu_memory_bytes < max(batch.total, longest.total):
        progress.note(
            f"the largest batch does not fit into {gpu_memory_bytes / 1e9:.1f} GB and will be answered with an error"
        )
