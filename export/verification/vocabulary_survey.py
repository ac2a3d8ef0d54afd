"""Tokens whose activations may be large although no probe text has them, for the range of fp16.

A first token attends only to itself, so its residual stream starts as its embedding, and large activations of an MLP
start with large products of that with the rows of gate and up. Both are cheap to compute for a whole vocabulary; the
tokens that stand out then run through the reference.
"""

from __future__ import annotations

import torch

from ..architectures import EMBEDDINGS
from ..sources.checkpoint import Checkpoint

_MLP_ROWS = 64
"""Rows of gate and up that are compared with every token: those of the largest norms."""
_BY_PRODUCT, _BY_EMBEDDING, _SPREAD = 96, 32, 128
"""Tokens that are chosen by their products, by their embedding, and evenly over the vocabulary."""


def outstanding_tokens(checkpoint: Checkpoint) -> list[int]:
    """Return some 250 token ids: those of the largest first activations first, then some of the whole vocabulary."""
    config, weights = checkpoint.config, checkpoint.weights
    layer = config.architecture.layer(0)
    gain = weights[layer.mlp_norm].fp32()
    gate, up = (weights[name].fp32() * gain for name in layer.gate_up)
    strongest = (gate.norm(dim=1) * up.norm(dim=1)).topk(min(_MLP_ROWS, len(gate))).indices
    gate, up = gate[strongest].T, up[strongest].T
    count = config.vocabulary
    # allocated first: small tensors between large ones that are freed would keep the heap from shrinking
    products, embeddings, first = torch.empty(count), torch.empty(count), 0
    for rows in weights[EMBEDDINGS].fp32_parts():
        part = slice(first, first + len(rows))
        first += len(rows)
        normed = rows / (rows.pow(2).mean(dim=1, keepdim=True) + config.norm_eps).sqrt()
        values = normed @ up
        products[part] = (torch.nn.functional.silu(normed @ gate) * values).abs().maximum(values.abs()).amax(dim=1)
        embeddings[part] = rows.abs().amax(dim=1)
    chosen = [
        *_largest(products, _BY_PRODUCT),
        *_largest(embeddings, _BY_EMBEDDING),
        *range(0, count, -(-count // _SPREAD)),
    ]
    return list(dict.fromkeys(chosen))


def _largest(values: torch.Tensor, count: int) -> list[int]:
    found: list[int] = values.topk(min(count, len(values))).indices.tolist()
    return found
