"""How large a batch may become: rows, tokens and padded cells, chosen at export."""

from __future__ import annotations

from dataclasses import dataclass

from ...client.manifest import Device
from ..architectures import DecoderConfig
from ..options import CudaAttention, ServingOptions

TURNAROUND_S = {Device.CPU: 1.0, Device.CUDA: 0.1}
"""Time in which a batch that uses up its token budget should be computed."""
_SMALLEST_BUDGET = {Device.CPU: 512, Device.CUDA: 4096}
"""Smaller batches lose throughput: products of few rows do not fill the device."""
_LARGEST_BUDGET = 65_536
_ESTIMATED_GPU_FLOPS = 100e12
"""Products on a data-centre GPU whose speed cannot be measured at export, multiply and add counted separately."""
_INT32_MAX = 2**31 - 1
_CELLS_PER_TOKEN = 4
"""How far padding may outgrow the tokens of a batch on a GPU: one long text pads every other row to its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What one batch may hold."""

    rows: int
    """Triton's `max_batch_size`."""
    tokens: int | None
    """Most tokens, kept by the batching strategy library; None where the model has none. A larger request is computed
    in a batch of its own."""
    cells: int | None = None
    """Most cells of right-padded rows, rows × longest row; None where nothing is padded."""


def choose_token_budget(device: Device, tokens_per_s: float) -> int:
    """Return the tokens that the device computes in TURNAROUND_S, rounded down to a power of two, within bounds."""
    affordable = max(1, int(tokens_per_s * TURNAROUND_S[device]))
    return min(max(1 << (affordable.bit_length() - 1), _SMALLEST_BUDGET[device]), _LARGEST_BUDGET)


def estimate_gpu_tokens_per_s(config: DecoderConfig) -> float:
    """Return the speed of a GPU that is not at hand, from the products of one token."""
    attention = config.hidden * (2 * config.query_width + 2 * config.kv_width)
    multiply_adds = config.layers * (attention + 3 * config.hidden * config.intermediate)
    return _ESTIMATED_GPU_FLOPS / (2 * multiply_adds)


def limit_batches(
    serving: ServingOptions, config: DecoderConfig, max_tokens: int, attention: CudaAttention | None, budget: int
) -> BatchLimits:
    """Return the limits of a batch that should hold at most `budget` tokens.

    Args:
        serving: Options of the export. Without its token budget, rows are limited so that even rows of `max_tokens`
            stay within `budget`.
        config: Shape of the model.
        max_tokens: Longest row, tokens.
        attention: How attention of a CUDA graph is fed; None for a CPU.
        budget: Tokens.
    """
    rows, cells = serving.max_batch_rows, None
    if attention is not None:
        # CUDA kernels index tensors with 32 bits
        widest = max(2 * config.intermediate, config.query_width + 2 * config.kv_width)
        budget = min(budget, _INT32_MAX // widest)
        if attention is CudaAttention.ROWS:
            cells = min(_CELLS_PER_TOKEN * budget, _INT32_MAX // (config.query_width + 2 * config.kv_width))
    if serving.token_budget:
        return BatchLimits(rows=rows, tokens=budget, cells=cells)
    return BatchLimits(rows=min(rows, max(1, budget // max_tokens)), tokens=None)
