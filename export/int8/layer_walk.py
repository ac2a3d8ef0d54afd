"""A decoder run one layer at a time: one layer's weights in memory beside the states of every text.

Shapes: B rows of a batch, L its width, T real tokens of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..architectures import FINAL_NORM, DecoderConfig
from ..passes.rotate import UNROTATE
from ..sources.checkpoint import Checkpoint
from ..sources.weights import LazyTensor, in_memory
from .products import ProductGroup
from .rounding import round_normed, round_rows

_BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Texts of about one length, padded on the right, where a causal model never looks."""

    hidden: torch.Tensor
    """float32 [B, L, hidden]"""
    real: torch.Tensor
    """bool [B, L]"""
    texts: tuple[int, ...]
    """Which texts these are, [B]."""

    def plus(self, update: torch.Tensor) -> TextBatch:
        """The batch with `update` [B, L, hidden] added to its states."""
        return replace(self, hidden=self.hidden + update)


def embed_texts(table: torch.Tensor, rows: Sequence[Sequence[int]]) -> list[TextBatch]:
    """The token embeddings of `rows` of ids from `table` [vocabulary, hidden], in batches."""
    batches, waiting = [], sorted(range(len(rows)), key=lambda row: len(rows[row]))
    while waiting:
        taken = [waiting.pop()]
        width = len(rows[taken[0]])
        while waiting and (len(taken) + 1) * width <= _BATCH_TOKENS:
            taken.append(waiting.pop())
        ids = torch.tensor([[*rows[row], *[0] * (width - len(rows[row]))] for row in taken])
        real = torch.arange(width) < torch.tensor([[len(rows[row])] for row in taken])
        batches.append(TextBatch(table[ids], real, tuple(taken)))
    return batches


class DecoderLayer:
    """transformers' own layer `index` with the weights of `checkpoint` in fp32, in its two halves."""

    def __init__(self, checkpoint: Checkpoint, index: int) -> None:
        classes = checkpoint.config.architecture.load_classes()
        config = checkpoint.transformers_config()
        # causal where it is given no mask
        config._attn_implementation = "sdpa"
        with torch.device("meta"):
            self._layer: Any = classes.layer(config, index)
        names = list(self._layer.state_dict())
        tensors = {name: checkpoint.weights[f"layers.{index}.{name}"].fp32() for name in names}
        self._layer.load_state_dict(tensors, assign=True)
        self._layer.train(False)
        self._tensors = checkpoint.config.architecture.layer(index)
        self._prefix = f"layers.{index}."
        self._rope = classes.rotary(config)
        self._rounded: dict[str, torch.nn.Parameter] = {}
        self._rounds_values = index < checkpoint.config.layers - 1
        self._is_rotated = UNROTATE in checkpoint.weights

    def weights(self) -> dict[str, LazyTensor]:
        """Return the layer's weights, in memory, under their names in the checkpoint."""
        return {self._prefix + name: in_memory(tensor) for name, tensor in self._layer.state_dict().items()}

    def tensors(self, group: ProductGroup) -> tuple[str, ...]:
        """Return the names of the weights of `group` in this layer."""
        return group.tensors(self._tensors)

    def weight(self, name: str) -> torch.Tensor:
        """Return the weight `name` of a product: float32 [out, in]."""
        values: torch.Tensor = self._linear(name).weight.data
        return values

    def _linear(self, name: str) -> Any:
        """The module of transformers that has the weight `name`."""
        return self._layer.get_submodule(name.removeprefix(self._prefix).removesuffix(".weight"))

    @torch.inference_mode()
    def attend(self, hidden: torch.Tensor) -> torch.Tensor:
        """What attention adds to `hidden` [B, L, hidden]."""
        rope = self._rope(hidden, torch.arange(hidden.shape[1])[None])
        update: torch.Tensor = self._layer.self_attn(
            hidden_states=self._layer.input_layernorm(hidden), position_embeddings=rope, attention_mask=None
        )[0]
        return update

    @torch.inference_mode()
    def feed(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the MLP adds to `hidden` [B, L, hidden]."""
        update: torch.Tensor = self._layer.mlp(self._layer.post_attention_layernorm(hidden))
        return update

    @torch.inference_mode()
    def multiply(self, group: ProductGroup, inputs: torch.Tensor) -> torch.Tensor:
        """The only product of `group` of `inputs` [B, L, in]: [B, L, out]."""
        (name,) = self.tensors(group)
        values: torch.Tensor = self._linear(name)(inputs)
        return values

    def run(self, batch: TextBatch) -> TextBatch:
        """The batch behind both halves."""
        batch = batch.plus(self.attend(batch.hidden))
        return batch.plus(self.feed(batch.hidden))

    @contextmanager
    def watched(self) -> Iterator[dict[ProductGroup, torch.Tensor]]:
        """Filled while the layer runs inside: what each group of products read last, [B, L, in]."""
        seen: dict[ProductGroup, torch.Tensor] = {}

        def watch(group: ProductGroup) -> Any:
            def see(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
                seen[group] = inputs[0]

            return see

        with ExitStack() as held:
            for group in ProductGroup:
                module = self._linear(self.tensors(group)[0])
                held.callback(module.register_forward_pre_hook(watch(group)).remove)
            yield seen

    @contextmanager
    def rounded(self, groups: Iterable[ProductGroup]) -> Iterator[None]:
        """The products of `groups` round as the int8 graph does while the layer runs inside."""
        with ExitStack() as held:
            for group in groups:
                round_inputs = _round_normed if self._is_rotated and group.reads_norm else _round_inputs
                for name in filter(self._is_rounded, self.tensors(group)):
                    module = self._linear(name)
                    exact = module.weight
                    if name not in self._rounded:
                        self._rounded[name] = torch.nn.Parameter(round_rows(exact.data), requires_grad=False)
                    module.weight = self._rounded[name]
                    held.callback(setattr, module, "weight", exact)
                    held.callback(module.register_forward_pre_hook(round_inputs).remove)
            yield

    def _is_rounded(self, name: str) -> bool:
        """The graph projects the last layer's values in floats, after weighting them."""
        return self._rounds_values or name != self._tensors.v


def layer_names(config: DecoderConfig) -> set[str]:
    """Return the names of all tensors that belong to a layer."""
    return {name for name in config.tensor_shapes() if name.startswith("layers.")}


def _round_inputs(_module: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (round_rows(inputs[0]),)


def _round_normed(_module: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (round_normed(inputs[0]),)


def finish_texts(checkpoint: Checkpoint, batches: Sequence[TextBatch]) -> torch.Tensor:
    """Each text's final state at its last token, of length 1 and in the texts' order: float32 [texts, hidden]."""
    norm = checkpoint.config.architecture.load_classes().norm(checkpoint.config.hidden, eps=checkpoint.config.norm_eps)
    norm.load_state_dict({"weight": checkpoint.weights[FINAL_NORM].fp32()})
    states = torch.empty(sum(len(batch.texts) for batch in batches), checkpoint.config.hidden)
    with torch.inference_mode():
        for batch in batches:
            last = batch.hidden[torch.arange(len(batch.texts)), batch.real.sum(1) - 1]
            states[list(batch.texts)] = norm(last)
        if UNROTATE in checkpoint.weights:
            states = states @ checkpoint.weights[UNROTATE].fp32().T
        return torch.nn.functional.normalize(states, dim=-1)
