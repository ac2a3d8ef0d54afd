"""Run a decoder one layer at a time, with the weights of one layer and the hidden states of all texts in memory.

Shapes: B rows of a batch, L its width, T its real tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..architectures import FINAL_NORM
from ..heap import release_freed_memory
from ..passes.rotate import UNROTATE
from ..sources.checkpoint import Checkpoint
from ..sources.weights import LazyTensor
from ..threads import one_thread_per_operator
from .products import ProductGroup
from .rounding import round_normed, round_rows

_BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Right-padded texts of similar length."""

    hidden: torch.Tensor
    """float32 [B, L, hidden]: hidden states."""
    real: torch.Tensor
    """bool [B, L]: whether a cell is a token."""
    texts: tuple[int, ...]
    """[B]: indices of the texts."""

    def plus(self, update: torch.Tensor) -> TextBatch:
        """Return the batch with `update` [B, L, hidden] added to its hidden states."""
        return replace(self, hidden=self.hidden + update)


def embed_texts(table: LazyTensor, rows: Sequence[Sequence[int]]) -> list[TextBatch]:
    """Return the embeddings of `rows` of token ids from `table` [vocabulary, hidden], in batches."""
    batches, remaining = [], sorted(range(len(rows)), key=lambda row: len(rows[row]))
    while remaining:
        batch = [remaining.pop()]
        width = len(rows[batch[0]])
        while remaining and (len(batch) + 1) * width <= _BATCH_TOKENS:
            batch.append(remaining.pop())
        ids = torch.tensor([[*rows[row], *[0] * (width - len(rows[row]))] for row in batch])
        real = torch.arange(width) < torch.tensor([[len(rows[row])] for row in batch])
        batches.append(TextBatch(table.look_up(ids), real, tuple(batch)))
    return batches


class DecoderLayer:
    """Layer `index` of the transformers model with the weights of `checkpoint` in fp32, as attention and MLP."""

    def __init__(self, checkpoint: Checkpoint, index: int) -> None:
        classes = checkpoint.config.architecture.load_classes()
        config = checkpoint.transformers_config()
        # sdpa is causal without a mask
        config._attn_implementation = "sdpa"
        with torch.device("meta"):
            self._layer: Any = classes.layer(config, index)
        names = list(self._layer.state_dict())
        release_freed_memory()
        with one_thread_per_operator():
            tensors = {name: checkpoint.weights[f"layers.{index}.{name}"].fp32() for name in names}
        self._layer.load_state_dict(tensors, assign=True)
        self._layer.train(False)
        self._tensors = checkpoint.config.architecture.layer(index)
        self._prefix = f"layers.{index}."
        self._rope = classes.rotary(config)
        self._rounded: dict[str, torch.nn.Parameter] = {}
        self._causal = checkpoint.config.causal
        self._rounds_values = index < checkpoint.config.layers - 1 or not checkpoint.prunes_last_layer
        self._is_rotated = UNROTATE in checkpoint.weights

    def tensors(self, group: ProductGroup) -> tuple[str, ...]:
        """Return the names of the weights of `group` in this layer."""
        return group.tensors(self._tensors)

    def weight(self, name: str) -> torch.Tensor:
        """Return the matrix `name`: float32 [out, in]."""
        values: torch.Tensor = self._linear(name).weight.data
        return values

    def _linear(self, name: str) -> Any:
        """Return the module that has the weight `name`."""
        return self._layer.get_submodule(name.removeprefix(self._prefix).removesuffix(".weight"))

    @torch.inference_mode()
    def attend(self, batch: TextBatch) -> torch.Tensor:
        """Return the update [B, L, hidden] of the batch's hidden states by attention."""
        hidden = batch.hidden
        # causal attention needs no mask for right padding
        mask = None if self._causal else batch.real[:, None, None, :]
        rope = self._rope(hidden, torch.arange(hidden.shape[1])[None])
        update: torch.Tensor = self._layer.self_attn(
            hidden_states=self._layer.input_layernorm(hidden), position_embeddings=rope, attention_mask=mask
        )[0]
        return update

    @torch.inference_mode()
    def feed(self, batch: TextBatch) -> torch.Tensor:
        """Return the update [B, L, hidden] of the batch's hidden states by the MLP."""
        update: torch.Tensor = self._layer.mlp(self._layer.post_attention_layernorm(batch.hidden))
        return update

    @torch.inference_mode()
    def multiply(self, group: ProductGroup, inputs: torch.Tensor) -> torch.Tensor:
        """Multiply `inputs` [B, L, in] by the only matrix of `group`: [B, L, out]."""
        (name,) = self.tensors(group)
        values: torch.Tensor = self._linear(name)(inputs)
        return values

    def run(self, batch: TextBatch) -> TextBatch:
        """Return the batch after attention and MLP."""
        batch = batch.plus(self.attend(batch))
        return batch.plus(self.feed(batch))

    @contextmanager
    def recorded(self) -> Iterator[dict[ProductGroup, torch.Tensor]]:
        """Yield a dict that receives the last input [B, L, in] of each group of products while the layer runs."""
        recorded: dict[ProductGroup, torch.Tensor] = {}

        def recorder(group: ProductGroup) -> Any:
            def record(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
                recorded[group] = inputs[0]

            return record

        with ExitStack() as hooks:
            for group in ProductGroup:
                module = self._linear(self.tensors(group)[0])
                hooks.callback(module.register_forward_pre_hook(recorder(group)).remove)
            yield recorded

    @contextmanager
    def rounded(self, groups: Iterable[ProductGroup]) -> Iterator[None]:
        """Round the products of `groups` like the int8 graph within the block."""
        with ExitStack() as undo:
            for group in groups:
                round_inputs = _round_normed if self._is_rotated and group.reads_norm else _round_inputs
                for name in filter(self._is_rounded, self.tensors(group)):
                    module = self._linear(name)
                    exact = module.weight
                    if name not in self._rounded:
                        self._rounded[name] = torch.nn.Parameter(round_rows(exact.data), requires_grad=False)
                    module.weight = self._rounded[name]
                    undo.callback(setattr, module, "weight", exact)
                    undo.callback(module.register_forward_pre_hook(round_inputs).remove)
            yield

    def _is_rounded(self, name: str) -> bool:
        """Whether the graph quantizes the product `name`; it projects a pruned layer's values in floats."""
        return self._rounds_values or name != self._tensors.v


def _round_inputs(_module: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (round_rows(inputs[0]),)


def _round_normed(_module: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (round_normed(inputs[0]),)


def finish_texts(checkpoint: Checkpoint, batches: Sequence[TextBatch]) -> torch.Tensor:
    """Return the embeddings float32 [texts, D]: final norm, pooling, and what follows it in the checkpoint's head."""
    norm = checkpoint.config.architecture.load_classes().norm(checkpoint.config.hidden, eps=checkpoint.config.norm_eps)
    norm.load_state_dict({"weight": checkpoint.weights[FINAL_NORM].fp32()})
    states = torch.empty(sum(len(batch.texts) for batch in batches), checkpoint.config.hidden)
    with torch.inference_mode():
        for batch in batches:
            states[list(batch.texts)] = checkpoint.head.pooling.pool(norm(batch.hidden), batch.real)
        if UNROTATE in checkpoint.weights:
            states = states @ checkpoint.weights[UNROTATE].fp32().T
        return checkpoint.head.finish(states)
