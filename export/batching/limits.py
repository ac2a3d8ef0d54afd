"""Limits of a batch, chosen at export: rows, tokens and padded cells."""

from __future__ import annotations

from dataclasses import dataclass

from ...client.manifest import Device, RecommendedLoad
from ..architectures import DecoderConfig
from ..errors import ExportError
from ..options import CudaAttention, ServingOptions

TURNAROUND_S = {Device.CPU: 1.0, Device.CUDA: 0.1}
"""Target time of a batch that uses its whole token budget, in seconds."""
_SMALLEST_BUDGET = {Device.CPU: 512, Device.CUDA: 4096}
"""Tokens. Matrix products of smaller batches do not saturate the device."""
_LARGEST_BUDGET = 65_536
_ESTIMATED_GPU_FLOPS = 100e12
"""FLOP/s assumed for a data-centre GPU if none is available at export; a multiply-add is two."""
_DEFAULT_ROWS = 64
_INT32_MAX = 2**31 - 1
_CELLS_PER_TOKEN = 4
"""Most padded cells per token of a GPU batch: one long text pads every other row to its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Limits of one batch."""

    rows: int
    """Triton's `max_batch_size`."""
    tokens: int | None
    """Most tokens, enforced by the batching strategy library; None if the model has no library. A larger request is
    computed in its own batch."""
    cells: int | None = None
    """Most cells of right-padded rows, rows × longest row; None if attention has no padding."""

    def recommended_load(self, max_tokens: int, instances: int) -> RecommendedLoad:
        """Return the load that one client should put on `instances` instances: each computes a batch as one waits."""
        batch = self.tokens or self.rows * max_tokens
        return RecommendedLoad(request_tokens=batch, tokens_in_flight=2 * instances * batch)


def choose_token_budget(device: Device, tokens_per_s: float) -> int:
    """Return the tokens that `device` computes in TURNAROUND_S, rounded down to a power of two and clamped."""
    affordable = max(1, int(tokens_per_s * TURNAROUND_S[device]))
    return min(max(1 << (affordable.bit_length() - 1), _SMALLEST_BUDGET[device]), _LARGEST_BUDGET)


def estimate_gpu_tokens_per_s(config: DecoderConfig) -> float:
    """Estimate the speed of a data-centre GPU from the matrix products of one token."""
    return _ESTIMATED_GPU_FLOPS / (2 * config.multiply_adds)


def check_batch_rows(serving: ServingOptions, config: DecoderConfig, max_tokens: int) -> None:
    """Raise ExportError if a GPU cannot index the tensors of a batch of `max_batch_rows` rows of `max_tokens`."""
    rows, most = serving.max_batch_rows, indexable_rows(config, max_tokens)
    if rows is not None and rows > most:
        raise ExportError(
            f"max_batch_rows {rows}: CUDA kernels index with 32 bits, which is enough for {most} rows of "
            f"{max_tokens:,} tokens of this model; use fewer rows or a smaller max_tokens"
        )


def indexable_rows(config: DecoderConfig, max_tokens: int) -> int:
    """Return the most rows of `max_tokens` whose widest tensor a CUDA kernel can index."""
    return max(1, _INT32_MAX // (max_tokens * _widest(config)))


def limit_batches(
    serving: ServingOptions, config: DecoderConfig, max_tokens: int, attention: CudaAttention | None, budget: int
) -> BatchLimits:
    """Return the limits of a batch of at most `budget` tokens.

    Args:
        serving: Serving options. If `token_budget` is off, rows are limited so that rows of `max_tokens` stay within
            `budget`.
        config: Shape of the model.
        max_tokens: Longest row in tokens.
        attention: Attention of a GPU graph over mixed lengths; None for a CPU graph.
        budget: Most tokens of a batch.
    """
    rows, cells = serving.max_batch_rows or _DEFAULT_ROWS, None
    if attention is not None:
        rows = min(rows, indexable_rows(config, max_tokens))
        if attention is CudaAttention.ROWS:
            cells = _CELLS_PER_TOKEN * budget
    if serving.token_budget:
        return BatchLimits(rows=rows, tokens=budget, cells=cells)
    return BatchLimits(rows=min(rows, max(1, budget // max_tokens)), tokens=None)


def _widest(config: DecoderConfig) -> int:
    """Return the columns of the widest tensor of a GPU graph, which has a row for each token or cell."""
    return max(config.hidden, config.intermediate, config.query_width)
