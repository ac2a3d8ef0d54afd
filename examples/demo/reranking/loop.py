"""Training loop of the reranker."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import Qwen3ForCausalLM

from examples.demo.loop import LoggedLoss, Schedule
from examples.demo.reranking.lists import NEGATIVES, TrainingList, list_batches
from examples.demo.reranking.model import score_logits
from examples.demo.reranking.tokens import PairRows

_LOG_EVERY = 20
_POINTWISE_WEIGHT = 0.1
_log = logging.getLogger(__name__)


def train_reranker(
    model: Qwen3ForCausalLM,
    pairs: PairRows,
    lists: Sequence[TrainingList],
    schedule: Schedule,
    *,
    seed: int,
    on_step: Callable[[int], None] | None = None,
) -> list[LoggedLoss]:
    """Train all weights in place and return the logged losses; `batch_pairs` of the schedule counts lists here."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=schedule.weight_decay, betas=(0.9, 0.98))
    stream = list_batches(lists, pairs, schedule.batch_pairs, random.Random(seed))
    logged: list[LoggedLoss] = []
    recent: list[float] = []
    started = time.monotonic()
    model.train()
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = score_logits(model, pairs, next(stream))
        loss = listwise_loss(logits.view(-1, 1 + NEGATIVES))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % _LOG_EVERY == 0 or step + 1 == schedule.steps:
            logged.append(LoggedLoss(step=step + 1, loss=round(sum(recent) / len(recent), 4)))
            pace_s = (time.monotonic() - started) / (step + 1)
            _log.info("step %d of %d: loss %.3f, %.2f s a step", step + 1, schedule.steps, logged[-1].loss, pace_s)
            recent.clear()
        if on_step is not None:
            on_step(step + 1)
    return logged


def listwise_loss(logits: Tensor) -> Tensor:
    """Return the cross entropy of the first document in each row of logits [lists, documents], plus a pointwise loss.

    The pointwise loss, with weight 0.1, moves scores of relevant documents above 0.5 and those of others below.
    """
    lists, documents = logits.shape
    listwise = cross_entropy(logits, torch.zeros(lists, dtype=torch.long))
    targets = torch.zeros(lists, documents)
    targets[:, 0] = 1
    return listwise + _POINTWISE_WEIGHT * binary_cross_entropy_with_logits(logits, targets)
