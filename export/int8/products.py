"""The matrix products of a decoder that the int8 graph computes in 8 bits, grouped by their input."""

from __future__ import annotations

from enum import StrEnum

from ..architectures import DecoderConfig, LayerTensors
from ..sources.checkpoint import Checkpoint

TABLE = "embedding.table"
"""Path of the embedding table in the graph."""


class ProductGroup(StrEnum):
    """Products of one layer that read the same activations, which are quantized once."""

    QKV = "attention.qkv"
    OUTPUT = "attention.output"
    GATE_UP = "mlp.gate_up"
    DOWN = "mlp.down"

    def tensors(self, layer: LayerTensors) -> tuple[str, ...]:
        """Return the names of the group's matrices in `layer`."""
        return {
            ProductGroup.QKV: layer.qkv,
            ProductGroup.OUTPUT: (layer.output,),
            ProductGroup.GATE_UP: layer.gate_up,
            ProductGroup.DOWN: (layer.down,),
        }[self]

    @property
    def reads_norm(self) -> bool:
        """Whether the group reads the output of an RMSNorm."""
        return self in (ProductGroup.QKV, ProductGroup.GATE_UP)

    def paths(self, layer: int, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Return the paths in the graph of the products that may be 8 bits."""
        if self is ProductGroup.QKV and layer == checkpoint.config.layers - 1 and checkpoint.prunes_last_layer:
            # a pruned layer projects values in floats, after weighting
            return tuple(f"layers.{layer}.{path}" for path in _LAST_QKV)
        return tuple(f"layers.{layer}.{path}" for path in _PATHS[self])

    def weights(self, config: DecoderConfig) -> int:
        """Return the number of weights, which is that of multiply-adds per token."""
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
