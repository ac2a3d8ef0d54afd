"""Pairs as token ids, and the order in which training sees them."""

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
_GROUP = 6
_POOL_BATCHES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPair:
    """A pair as token ids, each with its end token."""

    task: DemoTask
    module: str
    query: list[int]
    document: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Token ids [B, T] padded on the right, and the index of each row's last token [B]."""

    ids: Tensor
    last: Tensor


def tokenize_pairs(
    pairs: Sequence[Pair], tokenizer: Tokenizer, *, query_tokens: int, document_tokens: int
) -> list[TokenPair]:
    """The pairs as ids, over-long texts cut so that the end token stays."""
    queries = tokenizer.encode_batch([pair.task.prompt + pair.query for pair in pairs])
    documents = tokenizer.encode_batch([pair.document for pair in pairs])
    return [
        TokenPair(
            task=pair.task,
            module=pair.module,
            query=_cut(query.ids, query_tokens),
            document=_cut(document.ids, document_tokens),
        )
        for pair, query, document in zip(pairs, queries, documents, strict=True)
    ]


def _cut(ids: list[int], max_tokens: int) -> list[int]:
    return ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]]


def batches(pairs: Sequence[TokenPair], size: int, rng: random.Random) -> Iterator[list[TokenPair]]:
    """Batches without end, epoch after epoch; the last few pairs of an epoch are left out.

    Up to six neighbours in a batch share a module, which makes them hard negatives of each other. Batches are
    cut from groups sorted by task and length within a pool: few mix tasks, which would be told apart too easily,
    and little is spent on padding.
    """
    while True:
        groups = _related_groups(pairs, rng)
        rng.shuffle(groups)
        per_pool = _POOL_BATCHES * size // _GROUP
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
        groups += [members[at : at + _GROUP] for at in range(0, len(members), _GROUP)]
    return groups


def _task_and_length(group: list[TokenPair]) -> tuple[str, float]:
    return group[0].task.name, sum(len(pair.document) for pair in group) / len(group)


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> TokenBatch:
    """The rows as one tensor; a causal model with padding on the right needs no mask."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    return TokenBatch(ids=ids, last=torch.tensor([len(row) - 1 for row in rows]))
