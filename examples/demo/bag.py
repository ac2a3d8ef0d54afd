"""Initialization of the transformer from a bag-of-words model.

From random weights, the first hundreds of steps learn little more than what kind of text a text is. A bag of words
learns in a minute which tokens are related; the transformer is initialized to compute the same vectors.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3Model

from examples.demo.batches import TokenPair, batches
from examples.demo.loop import Schedule
from examples.demo.loss import matryoshka_loss

_EMBEDDING_RMS = 0.1


def train_token_embeddings(
    pairs: Sequence[TokenPair], rows: int, hidden_size: int, schedule: Schedule, seed: int
) -> Tensor:
    """Train embeddings [rows, hidden_size], rows of RMS 1, so that the means over both texts of a pair are similar."""
    table = nn.Parameter(torch.randn(rows, hidden_size, generator=torch.Generator().manual_seed(seed)))
    optimizer = torch.optim.AdamW([table], weight_decay=schedule.weight_decay, betas=(0.9, 0.98))
    stream = batches(pairs, schedule.batch_pairs, random.Random(seed))
    for step in range(schedule.steps):
        optimizer.param_groups[0]["lr"] = schedule.learning_rate(step)
        batch = next(stream)
        unit = scale_rows(table)
        queries = _mean_embeddings(unit, [pair.query for pair in batch])
        documents = _mean_embeddings(unit, [pair.document for pair in batch])
        loss = matryoshka_loss(queries, documents, schedule.temperature)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return scale_rows(table.detach())


def scale_rows(table: Tensor) -> Tensor:
    """Scale the rows to a root mean square of 1, as RMSNorm does."""
    return table * table.square().mean(-1, keepdim=True).add(1e-6).rsqrt()


def _mean_embeddings(table: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
    ids = torch.tensor([token for text in texts for token in text])
    lengths = torch.tensor([0, *(len(text) for text in texts[:-1])])
    return nn.functional.embedding_bag(ids, table, lengths.cumsum(0), mode="mean")


@torch.no_grad()
def initialize_as_bag_of_words(model: Qwen3Model, embeddings: Tensor) -> None:
    """Set the weights so that the hidden state of the last token is roughly the mean of `embeddings` over the text.

    The three key heads of the first layer average 192 of the 256 components, and those of the second layer the other
    64; each of the two query heads of a key head contributes half of the mean. The other output weights of attention
    and MLP are scaled to a tenth of their random values.
    """
    model.embed_tokens.weight.copy_(embeddings * _EMBEDDING_RMS)
    averaged = (range(192), range(192, 256), range(0))
    layers: Any = model.layers
    for layer, components in zip(layers, averaged, strict=True):
        attention = layer.self_attn
        attention.o_proj.weight.mul_(0.1)
        layer.mlp.down_proj.weight.mul_(0.1)
        attention.q_norm.weight.fill_(0.5)
        width = attention.head_dim
        for row, component in enumerate(components):
            attention.v_proj.weight[row].zero_()
            attention.v_proj.weight[row, component] = 1.0
            key_head, offset = divmod(row, width)
            for query_head in (2 * key_head, 2 * key_head + 1):
                attention.o_proj.weight[:, query_head * width + offset].zero_()
                attention.o_proj.weight[component, query_head * width + offset] = 0.5
