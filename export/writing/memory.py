"""How much GPU memory a model takes, told before anything is deployed."""

from __future__ import annotations

from dataclasses import dataclass

from ...client.contract import Precision
from ..graph.weight_blocks import BLOCK
from ..options import ServingOptions
from ..progress import Progress
from ..reading.config import ModelConfig

_BYTES = {Precision.FP32: 4, Precision.FP16: 2, Precision.BF16: 2, Precision.INT8: 2}
"""Of one activation on a GPU."""
_USUAL_TOKENS = 256
_LIBRARIES = 64 << 20
"""cuBLAS's workspace and what is allocated once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes of one instance on a GPU, without CUDA's own context (a few hundred MB)."""

    weights: int
    workspace: int
    """At the peak of one batch."""
    batch_rows: int
    batch_tokens: int

    @property
    def total(self) -> int:
        """Weights and workspace."""
        return self.weights + self.workspace


def estimate_memory(config: ModelConfig, precision: Precision, rows: int, tokens_each: int) -> MemoryEstimate:
    """What a batch of `rows` texts of `tokens_each` tokens takes.

    The peak is in attention or in the MLP, whichever holds more live tensors at once; batches of unequal
    texts pad the former to the longest.
    """
    tokens, size = rows * tokens_each, _BYTES[precision]
    attended = config.query_width + 2 * config.kv_width
    # the residual stream; packed, split, padded and rotated heads, the caches that come out, and the answer
    attention = config.hidden + 4 * attended + 2 * config.kv_width + config.query_width
    # the residual stream; gate and up in one, and split
    mlp = config.hidden + 4 * config.intermediate
    workspace = tokens * size * max(attention, mlp)
    if precision is Precision.INT8:
        # one matrix at a time is turned back to fp16
        workspace += size * config.hidden * max(attended, 2 * config.intermediate)
    return MemoryEstimate(
        weights=_weight_bytes(config, precision),
        workspace=workspace + _LIBRARIES,
        batch_rows=rows,
        batch_tokens=tokens,
    )


def _weight_bytes(config: ModelConfig, precision: Precision) -> int:
    attended = config.query_width + 2 * config.kv_width
    layer = config.hidden * (attended + config.query_width + 3 * config.intermediate)
    matrices, table = config.layers * layer, config.vocabulary * config.hidden
    if precision is Precision.INT8:
        return matrices + 2 * matrices // BLOCK + table + 2 * config.vocabulary
    return _BYTES[precision] * (matrices + table)


def tell_memory(
    config: ModelConfig, precision: Precision, max_tokens: int, serving: ServingOptions, progress: Progress
) -> None:
    """Notes what full batches of usual and of the longest texts take, and whether they fit the limit."""
    rows = serving.max_batch_rows
    widths = dict.fromkeys((min(_USUAL_TOKENS, max_tokens), max_tokens))
    estimates = [estimate_memory(config, precision, rows, width) for width in widths]
    batches = ", ".join(
        f"{estimate.workspace / 1e9:.1f} GB for {rows} texts of {width} tokens"
        for estimate, width in zip(estimates, widths, strict=True)
    )
    progress.note(f"GPU memory: weights {estimates[0].weights / 1e9:.1f} GB, workspace {batches}")
    limit = serving.gpu_memory_bytes
    if limit is not None and limit < estimates[-1].total:
        progress.note(f"the largest batch does not fit into {limit / 1e9:.1f} GB and will be answered with an error")
