"""Training of bag-of-words token embeddings that share parameters between the forms of a word."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from examples.demo.batches import TokenPair, batches
from examples.demo.loop import Schedule
from examples.demo.loss import contrastive_loss
from examples.demo.reranking.words import TokenWords


def train_bag(pairs: Sequence[TokenPair], words: TokenWords, size: int, schedule: Schedule, seed: int) -> Tensor:
    """Train embeddings [V, size] so that the means over both texts of a pair are similar.

    The embedding of a token is the sum of one for the token, one for its word, and the mean of those for its character
    n-grams. The length of a row is the weight of the token in a mean.
    """
    generator = torch.Generator().manual_seed(seed)
    own, word, gram = (
        nn.Parameter(0.1 * torch.randn(rows, size, generator=generator))
        for rows in (len(words.words), words.word_count, words.grams.shape[1])
    )
    optimizer = torch.optim.AdamW([own, word, gram], weight_decay=schedule.weight_decay, betas=(0.9, 0.98))
    stream = batches(pairs, schedule.batch_pairs, random.Random(seed))
    for step in range(schedule.steps):
        optimizer.param_groups[0]["lr"] = schedule.learning_rate(step)
        batch = next(stream)
        table = _table(own, word, gram, words)
        queries = _means(table, [pair.query for pair in batch])
        documents = _means(table, [pair.document for pair in batch])
        loss = contrastive_loss(queries, documents, schedule.temperature)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return _table(own, word, gram, words).detach()


def _table(own: Tensor, word: Tensor, gram: Tensor, words: TokenWords) -> Tensor:
    shared: Tensor = torch.sparse.mm(words.grams, gram)
    return own + word[words.words] + shared


def _means(table: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
    ids = torch.tensor([token for text in texts for token in text])
    lengths = torch.tensor([0, *(len(text) for text in texts[:-1])])
    return nn.functional.embedding_bag(ids, table, lengths.cumsum(0), mode="mean")
