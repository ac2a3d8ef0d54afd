"""Tokenized pairs, and their order in training."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from examples.demo.pairs import Pair
from examples.demo.tasks import DemoTask

MAX_QUERY_TOKENS = 64
MAX_DOCUMENT_TOKENS = 128
_GROUP_PAIRS = 6
_POOL_BATCHES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPair:
    """Token ids of a pair, both with their end token."""

    task: DemoTask
    module: str
    query: list[int]
    document: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Token ids [B, T], padded on the right, and the index of each row's last token [B]."""

    ids: Tensor
    last: Tensor


def tokenize_pairs(
    pairs: Sequence[Pair], tokenizer: Tokenizer, *, query_tokens: int, document_tokens: int
) -> list[TokenPair]:
    """Tokenize pairs; texts that are too long are truncated and keep their end token."""
    queries = tokenizer.encode_batch([pair.task.prompt + pair.query for pair in pairs])
    documents = tokenizer.encode_batch([pair.document for pair in pairs])
    return [
        TokenPair(
            task=pair.task,
            module=pair.module,
            query=_truncate(query.ids, query_tokens),
            document=_truncate(document.ids, document_tokens),
        )
        for pair, query, document in zip(pairs, queries, documents, strict=True)
    ]


def _truncate(ids: list[int], max_tokens: int) -> list[int]:
    return ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]]


def batches(pairs: Sequence[TokenPair], size: int, rng: random.Random) -> Iterator[list[TokenPair]]:
    """Yield batches endlessly, epoch after epoch; the last few pairs of an epoch are skipped.

    Groups of up to six pairs of one module stay together in a batch, as hard negatives of each other. Within a pool,
    groups are sorted by task and length before they are split into batches: few batches mix tasks, whose negatives
    would be too easy, and there is little padding.
    """
    while True:
        groups = _related_groups(pairs, rng)
        rng.shuffle(groups)
        per_pool = _POOL_BATCHES * size // _GROUP_PAIRS
        for start in range(0, len(groups), per_pool):
            pool = sorted(groups[start : start + per_pool], key=_task_and_length)
            flat = [pair for group in pool for pair in group]
            ready = [flat[at : at + size] for at in range(0, len(flat) - size + 1, size)]
            rng.shuffle(ready)
            yield from ready


def _related_groups(pairs: Sequence[TokenPair], rng: random.Random) -> list[list[TokenPair]]:
    by_module: dict[tuple[str, DemoTask], list[TokenPair]] = {}
    for pair in pairs:
        by_module.setdefault((pair.module, pair.task), []).append(pair)
    groups = []
    for members in by_module.values():
        rng.shuffle(members)
        groups += [members[at : at + _GROUP_PAIRS] for at in range(0, len(members), _GROUP_PAIRS)]
    return groups


def _task_and_length(group: list[TokenPair]) -> tuple[str, float]:
    return group[0].task.name, sum(len(pair.document) for pair in group) / len(group)


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> TokenBatch:
    """Pad rows to one tensor. A causal model needs no mask for padding on the right."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    return TokenBatch(ids=ids, last=torch.tensor([len(row) - 1 for row in rows]))
