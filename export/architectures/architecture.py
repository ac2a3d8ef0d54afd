"""What differs between decoder architectures that share RMSNorm, grouped-query attention with rope and a SwiGLU MLP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .decoder_config import DecoderConfig
from .tensor_names import EMBEDDINGS, FINAL_NORM, LayerTensors, layer_tensors
from .transformers_classes import TransformersClasses, import_classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One decoder architecture; each is defined in a module of this package."""

    name: str
    """Prefix of the classes in transformers: `Qwen3` for `Qwen3Model`."""
    model_type: str
    """`model_type` in config.json."""
    head_norms: bool
    """Whether queries and keys pass an RMSNorm over each head before rope."""
    qkv_biases: bool
    """Whether the query, key and value projections have biases."""
    default_head_dim: Callable[[int, int], int]
    """Return `head_dim` for a config.json without that field, from `hidden` and `heads`."""
    reject: Callable[[Mapping[str, Any]], str | None]
    """Return the reason why a config.json is not supported; None if it is."""
    official_prompts: bool
    """Whether checkpoints without prompts use those of Qwen3-Embedding and Qwen3-Reranker."""

    @property
    def model_classes(self) -> tuple[str, str, str]:
        """Supported entries of `architectures` in config.json."""
        return f"{self.name}Model", f"{self.name}ForCausalLM", f"{self.name}ForSequenceClassification"

    def load_classes(self) -> TransformersClasses:
        """Import the classes of transformers, which takes seconds."""
        return import_classes(self.name, self.model_type)

    def layer(self, index: int) -> LayerTensors:
        """Return the tensor names of layer `index`."""
        return layer_tensors(index, head_norms=self.head_norms, qkv_biases=self.qkv_biases)

    def shapes(self, config: DecoderConfig) -> dict[str, tuple[int, ...]]:
        """Return name → shape of every tensor of the decoder, heads excluded; matrices are [out, in]."""
        shapes: dict[str, tuple[int, ...]] = {
            EMBEDDINGS: (config.vocabulary, config.hidden),
            FINAL_NORM: (config.hidden,),
        }
        for index in range(config.layers):
            shapes |= _layer_shapes(self.layer(index), config)
        return shapes


def _layer_shapes(layer: LayerTensors, config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    hidden, queries, keys = config.hidden, config.query_width, config.kv_width
    shapes: dict[str | None, tuple[int, ...]] = {
        layer.attention_norm: (hidden,),
        layer.q: (queries, hidden),
        layer.k: (keys, hidden),
        layer.v: (keys, hidden),
        layer.output: (hidden, queries),
        layer.q_norm: (config.head_dim,),
        layer.k_norm: (config.head_dim,),
        layer.q_bias: (queries,),
        layer.k_bias: (keys,),
        layer.v_bias: (keys,),
        layer.mlp_norm: (hidden,),
        layer.gate: (config.intermediate, hidden),
        layer.up: (config.intermediate, hidden),
        layer.down: (hidden, config.intermediate),
    }
    return {name: shape for name, shape in shapes.items() if name is not None}
