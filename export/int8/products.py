"""The products of a decoder that the int8 graph computes in 8 bits, grouped by what they read."""

from __future__ import annotations

from enum import StrEnum

from ..sources.config import ModelConfig

TABLE = "embedding.table"
"""The graph's name of the token embeddings."""


class ProductGroup(StrEnum):
    """Products of one layer that read the same activations, rounded once for all of them."""

    QKV = "attention.qkv"
    OUTPUT = "attention.output"
    GATE_UP = "mlp.gate_up"
    DOWN = "mlp.down"

    @property
    def linears(self) -> tuple[str, ...]:
        """The checkpoint's names of the products, below the layer."""
        return _LINEARS[self]

    @property
    def reads_norm(self) -> bool:
        """Whether they read what a norm of the stream gives."""
        return self in (ProductGroup.QKV, ProductGroup.GATE_UP)

    def paths(self, layer: int, config: ModelConfig) -> tuple[str, ...]:
        """The graph's names of the products that are 8 bits unless they stay in fp32."""
        if self is ProductGroup.QKV and layer == config.layers - 1:
            # the graph mixes before it projects the last values, in floats
            return tuple(f"layers.{layer}.{path}" for path in _LAST_QKV)
        return tuple(f"layers.{layer}.{path}" for path in _PATHS[self])

    def weights(self, config: ModelConfig) -> int:
        """Numbers in the matrices, and multiply-adds a token."""
        return {
            ProductGroup.QKV: config.hidden * (config.query_width + 2 * config.kv_width),
            ProductGroup.OUTPUT: config.query_width * config.hidden,
            ProductGroup.GATE_UP: 2 * config.hidden * config.intermediate,
            ProductGroup.DOWN: config.intermediate * config.hidden,
        }[self]


_LINEARS = {
    ProductGroup.QKV: ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ProductGroup.OUTPUT: ("self_attn.o_proj",),
    ProductGroup.GATE_UP: ("mlp.gate_proj", "mlp.up_proj"),
    ProductGroup.DOWN: ("mlp.down_proj",),
}
_PATHS = {
    ProductGroup.QKV: ("attention.qkv",),
    ProductGroup.OUTPUT: ("attention.output",),
    ProductGroup.GATE_UP: ("mlp.gate", "mlp.up"),
    ProductGroup.DOWN: ("mlp.down",),
}
_LAST_QKV = ("attention.q", "attention.k")
