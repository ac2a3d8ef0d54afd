"""The products of a decoder that the int8 graph computes in 8 bits, grouped by what they read."""

from __future__ import annotations

from enum import StrEnum

from ..architectures import DecoderConfig, LayerTensors

TABLE = "embedding.table"
"""The graph's name of the token embeddings."""


class ProductGroup(StrEnum):
    """Products of one layer that read the same activations, rounded once for all of them."""

    QKV = "attention.qkv"
    OUTPUT = "attention.output"
    GATE_UP = "mlp.gate_up"
    DOWN = "mlp.down"

    def tensors(self, layer: LayerTensors) -> tuple[str, ...]:
        """Return the weights of the products of `layer`."""
        return {
            ProductGroup.QKV: layer.qkv,
            ProductGroup.OUTPUT: (layer.output,),
            ProductGroup.GATE_UP: layer.gate_up,
            ProductGroup.DOWN: (layer.down,),
        }[self]

    @property
    def reads_norm(self) -> bool:
        """Whether they read what a norm of the stream gives."""
        return self in (ProductGroup.QKV, ProductGroup.GATE_UP)

    def paths(self, layer: int, config: DecoderConfig) -> tuple[str, ...]:
        """The graph's names of the products that are 8 bits unless they stay in fp32."""
        if self is ProductGroup.QKV and layer == config.layers - 1:
            # the graph mixes before it projects the last values, in floats
            return tuple(f"layers.{layer}.{path}" for path in _LAST_QKV)
        return tuple(f"layers.{layer}.{path}" for path in _PATHS[self])

    def weights(self, config: DecoderConfig) -> int:
        """Numbers in the matrices, and multiply-adds a token."""
        return {
            ProductGroup.QKV: config.hidden * (config.query_width + 2 * config.kv_width),
            ProductGroup.OUTPUT: config.query_width * config.hidden,
            ProductGroup.GATE_UP: 2 * config.hidden * config.intermediate,
            ProductGroup.DOWN: config.intermediate * config.hidden,
        }[self]


_PATHS = {
    ProductGroup.QKV: ("attention.qkv",),
    ProductGroup.OUTPUT: ("attention.output",),
    ProductGroup.GATE_UP: ("mlp.gate", "mlp.up"),
    ProductGroup.DOWN: ("mlp.down",),
}
_LAST_QKV = ("attention.q", "attention.k")
