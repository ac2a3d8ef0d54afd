"""How much GPU memory a model takes, reported before anything is deployed."""

from __future__ import annotations

from dataclasses import dataclass

from ...client.manifest import Precision
from ..batching.limits import BatchLimits
from ..graph.weight_blocks import BLOCK
from ..progress import Progress
from ..sources.config import ModelConfig

_BYTES = {Precision.FP32: 4, Precision.FP16: 2, Precision.BF16: 2, Precision.INT8: 2}
"""Of one activation on a GPU."""
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


def estimate_memory(config: ModelConfig, precision: Precision, tokens: int, cells: int | None = None) -> MemoryEstimate:
    """Return what a batch of `tokens` tokens takes, whose right-padded rows have `cells` cells, or no padding.

    The peak is in attention or in the MLP, whichever holds more live tensors at once.
    """
    size, cells = _BYTES[precision], cells or tokens
    attended = config.query_width + 2 * config.kv_width
    # the residual stream, packed and split heads; padded and rotated heads, the caches that come out, and the answer
    attention = tokens * (config.hidden + 2 * attended) + cells * (
        2 * attended + 2 * config.kv_width + config.query_width
    )
    # the residual stream; gate and up in one, and split
    mlp = tokens * (config.hidden + 4 * config.intermediate)
    workspace = size * max(attention, mlp)
    if precision is Precision.INT8:
        # one matrix at a time is turned back to fp16
        workspace += size * config.hidden * max(attended, 2 * config.intermediate)
    return MemoryEstimate(
        weights=_weight_bytes(config, precision),
        workspace=workspace + _LIBRARIES,
        batch_tokens=tokens,
    )


def _weight_bytes(config: ModelConfig, precision: Precision) -> int:
    attended = config.query_width + 2 * config.kv_width
    layer = config.hidden * (attended + config.query_width + 3 * config.intermediate)
    matrices, table = config.layers * layer, config.vocabulary * config.hidden
    if precision is Precision.INT8:
        return matrices + 2 * matrices // BLOCK + table + 2 * config.vocabulary
    return _BYTES[precision] * (matrices + table)


def report_memory(
    config: ModelConfig,
    precision: Precision,
    limits: BatchLimits,
    max_tokens: int,
    gpu_memory_bytes: int | None,
    progress: Progress,
) -> None:
    """Note what the largest batch and the longest text take, and whether both fit the limit."""
    largest = limits.tokens or limits.rows * max_tokens
    batch = estimate_memory(config, precision, largest, limits.cells)
    longest = estimate_memory(config, precision, max_tokens)
    progress.note(
        f"GPU memory: weights {batch.weights / 1e9:.1f} GB, workspace {batch.workspace / 1e9:.1f} GB for a batch of "
        f"{largest:,} tokens, {longest.workspace / 1e9:.1f} GB for one text of {max_tokens:,}"
    )
    if gpu_memory_bytes is not None and gpu_memory_bytes < max(batch.total, longest.total):
        progress.note(
            f"the largest batch does not fit into {gpu_memory_bytes / 1e9:.1f} GB and will be answered with an error"
        )
