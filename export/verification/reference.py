"""The reference of every export: transformers in fp32 with the official recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from ..architectures import EMBEDDINGS, FINAL_NORM, SCORE_HEAD, LayerTensors
from ..errors import UnsupportedCheckpointError
from ..heap import release_freed_memory
from ..passes.rescale import ActivationPeaks
from ..passes.weight_peaks import WeightPeaks, measure_peaks
from ..sources.checkpoint import Checkpoint
from ..threads import one_thread_per_operator

REFERENCE_NAME = f"transformers {transformers.__version__} fp32"
_FIRST_BIDIRECTIONAL = (5, 2)
"""Release of transformers whose decoders honor `is_causal` in config.json."""
BATCH_TOKENS = 1536
"""Most tokens of a batch, with padding, unless one row is longer."""
_KEPT_BYTES = 2 << 30
"""Layers of this size in total, those of a 0.6B model for example, are loaded once for all runs."""


@dataclass(frozen=True, slots=True)
class ReferenceOutputs:
    """Embeddings or scores of the reference, and its largest activations."""

    vectors: NDArray[np.float32]
    """Embeddings [n, D] of L2 norm 1, or scores [n, 1]."""
    peaks: ActivationPeaks

    def part(self, first: int, count: int) -> ReferenceOutputs:
        """Return the outputs of `count` rows from `first` on, with the activations of all rows."""
        return ReferenceOutputs(self.vectors[first : first + count], self.peaks)


class ReferenceModel:
    """The transformers model in fp32 with the weights of a checkpoint, on rows of token ids.

    All batches pass through one layer before the next one is loaded, so that only one layer's weights are in memory,
    unless those of all layers are few. Scores use the `score.weight` of `passes.rerank_head`.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        _require_bidirectional(checkpoint)
        self._checkpoint = checkpoint
        self._config = checkpoint.config
        config = checkpoint.transformers_config()
        classes = checkpoint.config.architecture.load_classes()
        with torch.device("meta"):
            self._model: Any = classes.model(config)
        # buffers created on the meta device have no values
        self._model.rotary_emb = classes.rotary(config)
        self._model.train(False)
        self._layers: list[Any] = list(self._model.layers)
        self._keeps_layers = 4 * checkpoint.config.multiply_adds <= _KEPT_BYTES
        # the model prepares masks and positions, and the layers run one by one
        self._inputs = [_RecordedInputs(layer) for layer in self._layers]
        self._model.layers = torch.nn.ModuleList(self._inputs)
        self._norm = self._model.norm
        self._model.norm = torch.nn.Identity()
        self._norm.load_state_dict({"weight": checkpoint.weights[FINAL_NORM].fp32()}, assign=True)
        head = checkpoint.weights.get(SCORE_HEAD)
        self._score_rows = None if head is None else head.fp32()

    def embed(
        self, rows: Sequence[Sequence[int]], on_layers: Callable[[int, int], None], batch_tokens: int = BATCH_TOKENS
    ) -> ReferenceOutputs:
        """Compute embeddings by the checkpoint's head, in left-padded batches like the code of the model card.

        Args:
            rows: Token ids. Equal rows are computed once.
            on_layers: Called as `on_layers(done, total)` after each layer of each batch.
            batch_tokens: Most tokens of a batch, with padding, unless one row is longer.
        """
        head = self._checkpoint.head
        return self._run(
            rows, batch_tokens, on_layers, lambda states, real: head.finish(head.pooling.pool(states, real))
        )

    def score(
        self, rows: Sequence[Sequence[int]], on_layers: Callable[[int, int], None], batch_tokens: int = BATCH_TOKENS
    ) -> ReferenceOutputs:
        """Compute scores from the logits of no and yes, like the code of the model card; batched as in `embed`."""
        return self._run(rows, batch_tokens, on_layers, lambda states, _real: self._score_last(states[:, -1]))

    def _score_last(self, last: torch.Tensor) -> torch.Tensor:
        """Return scores [n, 1] from final hidden states [n, hidden]."""
        if self._score_rows is None:
            raise ValueError("the checkpoint has no score.weight; see passes.rerank_head")
        logits = last @ self._score_rows.T
        if logits.shape[1] == 1:
            return torch.sigmoid(logits)
        return torch.log_softmax(logits, dim=1)[:, 1:].exp()

    def _run(
        self,
        rows: Sequence[Sequence[int]],
        batch_tokens: int,
        on_layers: Callable[[int, int], None],
        head: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> ReferenceOutputs:
        """Return the outputs of `head` from final states [n, width, hidden] and whether each is that of a token."""
        watch = _PeakWatch()
        steps = count(1)
        different = sorted(dict.fromkeys(map(tuple, rows)), key=len)
        with torch.inference_mode():
            batches = [self._open_batch(batch) for batch in _split_rows(different, batch_tokens)]
            for batch in batches:
                watch.see_residual(batch.hidden[batch.real])
            for index in range(self._config.layers):
                with self._loaded(index) as layer, watch.watching(layer, self._config.architecture.layer(index)):
                    for batch in batches:
                        watch.real = batch.real
                        found = layer(batch.hidden, **batch.inputs[index])
                        batch.hidden = found[0] if isinstance(found, tuple) else found
                        on_layers(next(steps), len(batches) * self._config.layers)
            outputs = torch.cat([head(self._norm(batch.hidden), batch.real) for batch in batches])
        places = {row: place for place, row in enumerate(different)}
        return ReferenceOutputs(outputs.numpy()[[places[tuple(row)] for row in rows]], watch.peaks())

    def _open_batch(self, rows: Sequence[Sequence[int]]) -> _Batch:
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        hidden = self._checkpoint.weights[EMBEDDINGS].look_up(ids)
        self._model(inputs_embeds=hidden, attention_mask=mask, use_cache=False)
        return _Batch(hidden, mask.bool(), [inputs.taken() for inputs in self._inputs])

    @contextmanager
    def _loaded(self, index: int) -> Iterator[Any]:
        """Yield layer `index` with its weights."""
        layer = self._layers[index]
        if next(layer.parameters()).is_meta:
            names = list(layer.state_dict())
            weights = self._checkpoint.weights
            with one_thread_per_operator():
                tensors = {name: weights[f"layers.{index}.{name}"].fp32() for name in names}
            layer.load_state_dict(tensors, assign=True)
        yield layer
        if not self._keeps_layers:
            layer.to("meta")
            release_freed_memory()


def _require_bidirectional(checkpoint: Checkpoint) -> None:
    """Raise UnsupportedCheckpointError if the installed transformers would ignore that attention is bidirectional."""
    version = tuple(map(int, transformers.__version__.split(".")[:2]))
    if not checkpoint.config.causal and version < _FIRST_BIDIRECTIONAL:
        raise UnsupportedCheckpointError(
            f"{checkpoint.source}: is_causal is false, which transformers {transformers.__version__} ignores, so that "
            "it computes no reference; install transformers 5.2 or later"
        )


def _split_rows(rows: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[Sequence[Sequence[int]]]:
    """Split rows of increasing length into batches of at most `batch_tokens` with padding, or of one row."""
    first = 0
    for end, row in enumerate(rows):
        if end > first and (end + 1 - first) * len(row) > batch_tokens:
            yield rows[first:end]
            first = end
    yield rows[first:]


@dataclass(slots=True)
class _Batch:
    """Left-padded rows on their way through the layers."""

    hidden: torch.Tensor
    """float32 [rows, width, hidden]"""
    real: torch.Tensor
    """bool [rows, width]: whether a cell is a token."""
    inputs: list[dict[str, Any]]
    """The other arguments of each layer: mask and positions."""


class _RecordedInputs(torch.nn.Module):
    """Takes the place of a layer: records the arguments that the model passes, and returns the hidden states."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        # transformers 4 chooses the mask by it
        self.attention_type = getattr(layer, "attention_type", None)
        self._recorded: dict[str, Any] = {}

    def forward(self, hidden_states: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Record `inputs`."""
        self._recorded = inputs
        return hidden_states

    def taken(self) -> dict[str, Any]:
        """Return the recorded arguments and forget them."""
        recorded, self._recorded = self._recorded, {}
        return recorded


class _PeakWatch:
    """Forward hooks that record the largest absolute activations of real tokens, and those of weights."""

    def __init__(self) -> None:
        self.real = torch.ones(1, 1, dtype=torch.bool)
        """bool [rows, width]: the cells of the current batch that are tokens."""
        self._residual = 0.0
        self._intermediate = 0.0
        self._projection = 0.0
        self._channels: dict[str, torch.Tensor] = {}
        self._weights: dict[str, WeightPeaks] = {}

    @contextmanager
    def watching(self, layer: Any, names: LayerTensors) -> Iterator[None]:
        """Watch the products of `layer` within the block, and measure its matrices, which are in memory."""

        def module(tensor: str) -> Any:
            return layer.get_submodule(tensor.removesuffix(".weight").split(".", 2)[2])

        with one_thread_per_operator():
            for name in (*names.qkv, names.output, *names.gate_up, names.down):
                weight = module(name).weight
                self._weights[name] = measure_peaks([weight], tuple(weight.shape))
        handles = [layer.register_forward_hook(self._see_residual)]
        for name in (names.output, names.down):
            handles.append(module(name).register_forward_hook(self._see_residual))
        handles.append(module(names.up).register_forward_hook(partial(self._see_up, names.up)))
        for name in (*names.qkv, names.gate):
            handles.append(module(name).register_forward_hook(partial(self._see_projection, name)))
        handles.append(module(names.down).register_forward_pre_hook(partial(self._see_intermediate, names.up)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def peaks(self) -> ActivationPeaks:
        return ActivationPeaks(
            residual=self._residual,
            intermediate=self._intermediate,
            projection=self._projection,
            channels=self._channels,
            weights=self._weights,
        )

    def see_residual(self, values: torch.Tensor) -> None:
        """Record values of the residual stream."""
        self._residual = max(self._residual, float(values.abs().max()))

    def _see_residual(self, _module: object, _inputs: object, output: Any) -> None:
        values = output[0] if isinstance(output, tuple) else output
        self.see_residual(values[self.real])

    def _see_up(self, up: str, _module: object, _inputs: object, output: torch.Tensor) -> None:
        self._intermediate = max(self._intermediate, self._see(up, output))

    def _see_projection(self, name: str, _module: object, _inputs: object, output: torch.Tensor) -> None:
        self._projection = max(self._projection, self._see(name, output))

    def _see_intermediate(self, up: str, _module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        self._intermediate = max(self._intermediate, self._see(up, inputs[0]))

    def _see(self, name: str, values: torch.Tensor) -> float:
        """Record the channels of a product's values, and return their largest."""
        found = values[self.real].abs().amax(0)
        known = self._channels.get(name)
        self._channels[name] = found if known is None else torch.maximum(known, found)
        return float(found.max())
