"""Shapes of the Qwen3 decoders that are benchmarked with random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Shape of a decoder."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    def matmul_shapes(self) -> dict[str, tuple[int, int]]:
        """Return the weight shapes (inputs, outputs) of a layer's matmuls by name; q, k and v are fused."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "qkv": (self.hidden, query + 2 * key),
            "output": (query, self.hidden),
            "gate_up": (self.hidden, 2 * self.intermediate),
            "down": (self.intermediate, self.hidden),
        }

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name → shape of every tensor in a checkpoint; matrices are [outputs, inputs]."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (self.vocabulary, self.hidden)}
        for index in range(self.layers):
            layer = {
                "input_layernorm": (self.hidden,),
                "self_attn.q_proj": (query, self.hidden),
                "self_attn.k_proj": (key, self.hidden),
                "self_attn.v_proj": (key, self.hidden),
                "self_attn.o_proj": (self.hidden, query),
                "self_attn.q_norm": (self.head_dim,),
                "self_attn.k_norm": (self.head_dim,),
                "post_attention_layernorm": (self.hidden,),
                "mlp.gate_proj": (self.intermediate, self.hidden),
                "mlp.up_proj": (self.intermediate, self.hidden),
                "mlp.down_proj": (self.hidden, self.intermediate),
            }
            shapes |= {f"layers.{index}.{module}.weight": shape for module, shape in layer.items()}
        return shapes | {"norm.weight": (self.hidden,)}


_FULL_06B = ModelShape(
    layers=28, hidden=1024, intermediate=3072, heads=16, kv_heads=8, head_dim=128, vocabulary=151_669
)
_FULL_4B = ModelShape(layers=36, hidden=2560, intermediate=9728, heads=32, kv_heads=8, head_dim=128, vocabulary=151_665)
_FULL_8B = dataclasses.replace(_FULL_4B, hidden=4096, intermediate=12288)

SHAPES: Mapping[str, ModelShape] = MappingProxyType(
    {
        "0.6b": _FULL_06B,
        # the small vocabulary saves memory; the cost of an embedding lookup does not depend on its size
        "0.6b-4-layers": dataclasses.replace(_FULL_06B, layers=4, vocabulary=8192),
        "0.6b-1-layer": dataclasses.replace(_FULL_06B, layers=1, vocabulary=8192),
        "4b": _FULL_4B,
        "8b": _FULL_8B,
        "8b-4-layers": dataclasses.replace(_FULL_8B, layers=4),
        "tiny": ModelShape(layers=2, hidden=64, intermediate=128, heads=4, kv_heads=2, head_dim=32, vocabulary=512),
    }
)
"""Shapes by the name that `--model` takes."""
