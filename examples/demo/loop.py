"""Training loop of the base model and the adapter."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from examples.demo.batches import TokenPair, batches, pad
from examples.demo.loss import matryoshka_loss
from examples.demo.model import last_token_vectors

_LOG_EVERY = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Number of steps, batch size, learning rate and other settings of a training."""

    steps: int
    batch_pairs: int
    peak_learning_rate: float
    warmup_steps: int
    temperature: float = 0.05
    weight_decay: float = 0.01

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then cosine decay to a fiftieth of the peak."""
        if step < self.warmup_steps:
            return self.peak_learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.peak_learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedLoss:
    """Mean loss of the steps since the previous entry, up to and including `step`."""

    step: int
    loss: float


def train(
    model: nn.Module,
    pairs: Sequence[TokenPair],
    schedule: Schedule,
    *,
    pad_id: int,
    seed: int,
    on_step: Callable[[int], None] | None = None,
) -> list[LoggedLoss]:
    """Train the parameters that require gradients, in place, and return the logged losses."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=schedule.weight_decay, betas=(0.9, 0.98))
    stream = batches(pairs, schedule.batch_pairs, random.Random(seed))
    logged: list[LoggedLoss] = []
    recent: list[float] = []
    started = time.monotonic()
    model.train()
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        recent.append(_step(model, next(stream), optimizer, schedule.temperature, pad_id))
        if (step + 1) % _LOG_EVERY == 0 or step + 1 == schedule.steps:
            logged.append(LoggedLoss(step=step + 1, loss=round(sum(recent) / len(recent), 4)))
            pace_s = (time.monotonic() - started) / (step + 1)
            _log.info("step %d of %d: loss %.3f, %.2f s a step", step + 1, schedule.steps, logged[-1].loss, pace_s)
            recent.clear()
        if on_step is not None:
            on_step(step + 1)
    return logged


def _step(
    model: nn.Module,
    batch: Sequence[TokenPair],
    optimizer: torch.optim.Optimizer,
    temperature: float,
    pad_id: int,
) -> float:
    with torch.autocast("cpu", torch.bfloat16):
        queries = last_token_vectors(model, pad([pair.query for pair in batch], pad_id))
        documents = last_token_vectors(model, pad([pair.document for pair in batch], pad_id))
    loss = matryoshka_loss(queries, documents, temperature)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item()
