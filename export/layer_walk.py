"""A decoder run one layer at a time: the weights of one layer in memory, and the states of every text.

Shapes: B rows of one batch, L its width, T real tokens of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm, Qwen3RotaryEmbedding

from .checkpoint import Checkpoint
from .reference import transformers_config
from .rotate import UNROTATE
from .weights import Weights

INPUTS = {"attention": "self_attn.q_proj", "value": "self_attn.o_proj", "mlp": "mlp.gate_proj", "down": "mlp.down_proj"}
"""What the products of a layer read → the linear layer that shows it."""

_BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Rows of about one length, padded on the right, where a causal model never looks."""

    hidden: torch.Tensor
    """float32 [B, L, hidden]"""
    real: torch.Tensor
    """bool [B, L]"""
    rows: tuple[int, ...]
    """Which texts these are."""


def embed_batches(weights: Weights, rows: Sequence[Sequence[int]]) -> list[TextBatch]:
    """The token embeddings of `rows` of ids, in batches of rows of about one length."""
    table = weights["embed_tokens.weight"].fp32()
    batches, waiting = [], sorted(range(len(rows)), key=lambda row: len(rows[row]))
    while waiting:
        taken = [waiting.pop()]
        width = len(rows[taken[0]])
        while waiting and (len(taken) + 1) * width <= _BATCH_TOKENS:
            taken.append(waiting.pop())
        ids = torch.tensor([list(rows[row]) + [0] * (width - len(rows[row])) for row in taken])
        real = torch.arange(width) < torch.tensor([[len(rows[row])] for row in taken])
        batches.append(TextBatch(table[ids], real, tuple(taken)))
    return batches


class DecoderLayer:
    """transformers' own layer `index` with the weights of `checkpoint`, in fp32."""

    def __init__(self, checkpoint: Checkpoint, index: int) -> None:
        config = _eager_config(checkpoint)
        with torch.device("meta"):
            self._layer = Qwen3DecoderLayer(config, index)
        prefix = f"layers.{index}."
        names = list(self._layer.state_dict())
        self._layer.load_state_dict({name: checkpoint.weights[prefix + name].fp32() for name in names}, assign=True)
        self._layer.train(False)
        self._rope = Qwen3RotaryEmbedding(config)

    def linear(self, name: str) -> torch.nn.Linear:
        """One of its products, named as in the checkpoint: `self_attn.q_proj`."""
        linear = self._layer.get_submodule(name)
        assert isinstance(linear, torch.nn.Linear)
        return linear

    def run(self, batch: TextBatch) -> TextBatch:
        """The batch behind this layer."""
        positions = torch.arange(batch.hidden.shape[1])[None]
        with torch.inference_mode():
            rope = self._rope(batch.hidden, positions)
            output: Any = self._layer(batch.hidden, attention_mask=None, position_embeddings=rope)
        return TextBatch(output[0] if isinstance(output, tuple) else output, batch.real, batch.rows)

    def inputs(self, batch: TextBatch) -> tuple[TextBatch, Mapping[str, torch.Tensor]]:
        """The batch behind this layer, and what its products read: INPUTS' keys → float32 [T, in]."""
        seen: dict[str, torch.Tensor] = {}

        def watch(key: str) -> Any:
            def see(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
                seen[key] = inputs[0][batch.real]

            return see

        handles = [self.linear(name).register_forward_pre_hook(watch(key)) for key, name in INPUTS.items()]
        try:
            return self.run(batch), seen
        finally:
            for handle in handles:
                handle.remove()


def walk_layers(checkpoint: Checkpoint) -> Iterator[DecoderLayer]:
    """The layers from first to last, each made when it is asked for."""
    return (DecoderLayer(checkpoint, index) for index in range(checkpoint.config.layers))


def finish_rows(checkpoint: Checkpoint, batches: Sequence[TextBatch]) -> torch.Tensor:
    """Each text's vector behind the last layer, of length 1 and in the texts' order: float32 [texts, hidden]."""
    norm = Qwen3RMSNorm(checkpoint.config.hidden, eps=checkpoint.config.norm_eps)
    norm.load_state_dict({"weight": checkpoint.weights["norm.weight"].fp32()})
    vectors = torch.empty(sum(len(batch.rows) for batch in batches), checkpoint.config.hidden)
    with torch.inference_mode():
        for batch in batches:
            last = batch.hidden[torch.arange(len(batch.rows)), batch.real.sum(1) - 1]
            vectors[list(batch.rows)] = norm(last)
        if UNROTATE in checkpoint.weights:
            vectors = vectors @ checkpoint.weights[UNROTATE].fp32().T
        return torch.nn.functional.normalize(vectors, dim=-1)


def _eager_config(checkpoint: Checkpoint) -> Qwen3Config:
    config = transformers_config(checkpoint.raw_config, checkpoint.config.rope)
    # without a mask this one attends causally, and reads no mask that the model would have made
    config._attn_implementation = "sdpa"
    return config
