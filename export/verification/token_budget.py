"""The token budget of a batch, from the speed of the written graph if its device is available."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ...client.manifest import Device
from ..architectures import DecoderConfig
from ..batching.limits import choose_token_budget, estimate_gpu_tokens_per_s
from .runtime import WrittenModel

_ROW_TOKENS = 128
_ROWS = 4
_SLOW_S = 2.0


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Most tokens of a batch, and a description of where the number comes from."""

    tokens: int
    source: str


def measure_token_budget(
    model: WrittenModel | None, device: Device, config: DecoderConfig, max_tokens: int
) -> TokenBudget:
    """Measure the speed of `model` and return its budget; estimate it if `device`, a GPU, is not available."""
    if model is None or (device is Device.CUDA and not model.on_gpu):
        tokens = choose_token_budget(device, estimate_gpu_tokens_per_s(config))
        return TokenBudget(tokens, "estimated for a data-centre GPU")
    speed = measure_tokens_per_s(model, config.vocabulary, max_tokens)
    return TokenBudget(choose_token_budget(device, speed), f"measured at {speed:,.0f} tokens/s")


def measure_tokens_per_s(model: WrittenModel, vocabulary: int, max_tokens: int) -> float:
    """Return the speed of a batch of a few hundred tokens, or of a single row if that takes seconds."""
    row = [token % vocabulary for token in range(min(_ROW_TOKENS, max_tokens))]
    single_s = _best_s(model, [row], runs=1)
    if single_s > _SLOW_S:
        return len(row) / single_s
    return _ROWS * len(row) / _best_s(model, [row] * _ROWS, runs=3)


def _best_s(model: WrittenModel, rows: list[list[int]], runs: int) -> float:
    durations_s = []
    for _ in range(runs):
        started = time.perf_counter()
        model.run(rows)
        durations_s.append(time.perf_counter() - started)
    return min(durations_s)
