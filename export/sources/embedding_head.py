"""The head of an embedding model: what sentence-transformers computes after the decoder.

states [n, L, hidden] ─ pooling ─→ [n, hidden] ─ Dense modules ─→ [n, D] ─ L2 norm ─→ embeddings [n, D]
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch

from .weights import LazyTensor


class Pooling(StrEnum):
    """Supported modes of a Pooling module, by their names in sentence-transformers."""

    LAST_TOKEN = "lasttoken"
    MEAN = "mean"

    @property
    def label(self) -> str:
        """Name for people."""
        return {Pooling.LAST_TOKEN: "last-token pooling", Pooling.MEAN: "mean pooling"}[self]

    @property
    def reads_every_token(self) -> bool:
        """Whether the result needs the final states of all tokens, so that the last layer cannot be pruned."""
        return self is Pooling.MEAN

    def pool(self, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Pool final states.

        Args:
            states: float32 [n, L, hidden]; rows may be padded on either side.
            real: bool [n, L], whether a cell is a token.

        Returns:
            float32 [n, hidden]
        """
        if self is Pooling.LAST_TOKEN:
            last = real.shape[1] - 1 - real.flip(1).int().argmax(1)
            return states[torch.arange(len(states)), last]
        tokens = real[:, :, None].to(states.dtype)
        return (states * tokens).sum(1) / tokens.sum(1)


class Activation(StrEnum):
    """Supported activations of a Dense module, by the names of their classes in torch.nn and of their operators."""

    IDENTITY = "Identity"
    TANH = "Tanh"

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Apply the activation elementwise."""
        return torch.tanh(values) if self is Activation.TANH else values


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A Dense module on pooled states: activation(W · x + b)."""

    file: Path
    """Safetensors file of the weights."""
    weight: LazyTensor
    """[out, in]"""
    bias: LazyTensor | None
    """[out]"""
    activation: Activation
    normalizes_input: bool
    """Whether a Normalize module precedes it."""

    @property
    def width(self) -> int:
        """Components of the output."""
        return self.weight.shape[0]

    def apply(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the module's output float32 [n, out] for `rows` [n, in]."""
        if self.normalizes_input:
            rows = torch.nn.functional.normalize(rows, dim=-1)
        bias = None if self.bias is None else self.bias.fp32()
        return self.activation.apply(torch.nn.functional.linear(rows, self.weight.fp32(), bias))

    def __str__(self) -> str:
        """Describe the module for people."""
        unit = "Normalize, " if self.normalizes_input else ""
        activation = "" if self.activation is Activation.IDENTITY else f" with {self.activation}"
        return f"{unit}Dense {self.weight.shape[1]} → {self.width}{activation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingHead:
    """Pooling and Dense modules. The result is always normalized, whether or not the last module is Normalize."""

    pooling: Pooling = Pooling.LAST_TOKEN
    dense: tuple[Dense, ...] = ()
    """In order."""

    def width(self, hidden: int) -> int:
        """Return the components of an embedding of a decoder with `hidden` ones."""
        return self.dense[-1].width if self.dense else hidden

    def finish(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the embeddings [n, D] of pooled states [n, hidden]."""
        for module in self.dense:
            pooled = module.apply(pooled)
        return torch.nn.functional.normalize(pooled, dim=-1)


LAST_TOKEN_HEAD = EmbeddingHead()
"""Last-token pooling and L2 norm: the head of Qwen3-Embedding, and of checkpoints that state none."""
