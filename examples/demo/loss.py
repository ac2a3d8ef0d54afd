"""Training losses. Shapes: B pairs of a batch, D components."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

MATRYOSHKA_DIMS = (32, 64, 128, 256)


def matryoshka_loss(queries: Tensor, documents: Tensor, temperature: float) -> Tensor:
    """Return the mean of `contrastive_loss` over the first 32, 64, 128 and 256 components (Kusupati et al. 2022)."""
    losses = [contrastive_loss(queries[:, :dim], documents[:, :dim], temperature) for dim in MATRYOSHKA_DIMS]
    return torch.stack(losses).mean()


def contrastive_loss(queries: Tensor, documents: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE over the cosines of inputs [B, D], in both directions, with in-batch negatives."""
    cosines = normalize(queries, dim=-1) @ normalize(documents, dim=-1).T
    targets = torch.arange(len(cosines))
    logits = cosines / temperature
    return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2
