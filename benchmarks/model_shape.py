"""Shapes of the Qwen3 decoders that are measured, with random weights."""

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

    def products(self) -> dict[str, tuple[int, int]]:
        """(inner, columns) of a layer's products by name, q, k and v as one."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "qkv": (self.hidden, query + 2 * key),
            "output": (query, self.hidden),
            "gate_up": (self.hidden, 2 * self.intermediate),
            "down": (self.intermediate, self.hidden),
        }


_WHOLE = ModelShape(layers=28, hidden=1024, intermediate=3072, heads=16, kv_heads=8, head_dim=128, vocabulary=151_669)

_WHOLE_4B = ModelShape(
    layers=36, hidden=2560, intermediate=9728, heads=32, kv_heads=8, head_dim=128, vocabulary=151_665
)
_WHOLE_8B = dataclasses.replace(_WHOLE_4B, hidden=4096, intermediate=12288)

SHAPES: Mapping[str, ModelShape] = MappingProxyType(
    {
        "0.6b": _WHOLE,
        # the width of 0.6B, with a vocabulary that costs no memory: a table row is a row, however many there are
        "0.6b-4-layers": dataclasses.replace(_WHOLE, layers=4, vocabulary=8192),
        "4b": _WHOLE_4B,
        "8b": _WHOLE_8B,
        "tiny": ModelShape(layers=2, hidden=64, intermediate=128, heads=4, kv_heads=2, head_dim=32, vocabulary=512),
    }
)
"""By the name that a run is asked for."""
