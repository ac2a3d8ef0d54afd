"""Shapes and settings of a decoder, from config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSettings:
    """Rotary embedding: base `theta`, and the checkpoint's rope scaling fields without `rope_theta`."""

    theta: float
    scaling: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The rope type: default, linear, yarn or llama3."""
        return str(self.scaling.get("rope_type", "default"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Shapes and settings of a decoder; `heads × head_dim` need not equal `hidden`."""

    architecture: Architecture
    model_class: str
    """First entry of `architectures` in config.json, `Qwen3ForCausalLM` for example."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_positions: int
    norm_eps: float
    tied: bool
    """`tie_word_embeddings`: whether the LM head is the embedding table."""
    rope: RopeSettings
    sliding_window: int | None
    """Window, in tokens, of layers with sliding-window attention; None if there is no such layer."""
    causal: bool = True
    """Whether a token attends to no later one; False for bidirectional attention."""

    @property
    def query_width(self) -> int:
        """heads × head_dim."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """kv_heads × head_dim."""
        return self.kv_heads * self.head_dim

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per token of the matrix products with weights."""
        attention = self.hidden * (2 * self.query_width + 2 * self.kv_width)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name → shape of every tensor of the decoder, heads excluded; matrices are [out, in]."""
        return self.architecture.shapes(self)

    @property
    def is_causal_lm(self) -> bool:
        """Whether the checkpoint was saved with a language-model head."""
        return self.model_class.endswith("ForCausalLM")
