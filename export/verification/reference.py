"""The reference of every export: transformers in fp32 with the official recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from ..architectures import EMBEDDINGS, SCORE_HEAD, DecoderConfig
from ..passes.rescale import ActivationPeaks
from ..sources.checkpoint import Checkpoint

REFERENCE_NAME = f"transformers {transformers.__version__} fp32"


@dataclass(frozen=True, slots=True)
class ReferenceOutputs:
    """Embeddings or scores of the reference, and its largest activations."""

    vectors: NDArray[np.float32]
    """Embeddings [n, hidden] of L2 norm 1, or scores [n, 1]."""
    peaks: ActivationPeaks

    def joined(self, other: ReferenceOutputs) -> ReferenceOutputs:
        """Return these outputs followed by those of `other`."""
        return ReferenceOutputs(np.concatenate([self.vectors, other.vectors]), self.peaks.joined(other.peaks))


class ReferenceModel:
    """The transformers model in fp32 with the weights of a checkpoint, on rows of token ids.

    Scores use the `score.weight` of `passes.rerank_head`.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._config = checkpoint.config
        config = checkpoint.transformers_config()
        with torch.device("meta"):
            self._model: Any = checkpoint.config.architecture.load_classes().model(config)
        tensors = {name: checkpoint.weights[name].fp32() for name in checkpoint.config.tensor_shapes()}
        self._model.load_state_dict(tensors, assign=True)
        # buffers created on the meta device have no values
        self._model.rotary_emb = type(self._model.rotary_emb)(config)
        self._model.train(False)
        head = checkpoint.weights.get(SCORE_HEAD)
        self._score_rows = None if head is None else head.fp32()

    def embed(
        self, rows: Sequence[Sequence[int]], batch_rows: int, on_layers: Callable[[int, int], None]
    ) -> ReferenceOutputs:
        """Compute embeddings in left-padded batches, like the code of the model card.

        `on_layers(done, total)` is called after each layer of each batch.
        """
        return self._run(rows, batch_rows, on_layers, lambda last: torch.nn.functional.normalize(last, dim=-1))

    def score(
        self, rows: Sequence[Sequence[int]], batch_rows: int, on_layers: Callable[[int, int], None]
    ) -> ReferenceOutputs:
        """Compute scores from the logits of no and yes, like the code of the model card; batched as in `embed`."""
        return self._run(rows, batch_rows, on_layers, self._score_last)

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
        batch_rows: int,
        on_layers: Callable[[int, int], None],
        head: Callable[[torch.Tensor], torch.Tensor],
    ) -> ReferenceOutputs:
        outputs, watch = [], _PeakWatch(self._model, self._config)
        firsts = range(0, len(rows), batch_rows)
        with torch.inference_mode(), watch, _layers_counted(self._model, len(firsts), on_layers):
            for first in firsts:
                outputs.append(head(self._last_states(rows[first : first + batch_rows], watch)))
        return ReferenceOutputs(torch.cat(outputs).numpy(), watch.peaks())

    def _last_states(self, rows: Sequence[Sequence[int]], watch: _PeakWatch) -> torch.Tensor:
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        watch.mask = mask.bool()
        hidden: torch.Tensor = self._model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return hidden[:, -1]


@contextmanager
def _layers_counted(model: Any, batches: int, on_layers: Callable[[int, int], None]) -> Iterator[None]:
    """Call `on_layers(done, total)` after each layer of `batches` forward passes of `model`."""
    done, total = count(1), batches * len(model.layers)

    def report(*_: object) -> None:
        on_layers(next(done), total)

    handles = [layer.register_forward_hook(report) for layer in model.layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _PeakWatch:
    """Forward hooks that record the largest absolute activations of real tokens."""

    def __init__(self, model: Any, config: DecoderConfig) -> None:
        self._model = model
        self._config = config
        self.mask = torch.ones(1, 1, dtype=torch.bool)
        self._residual = 0.0
        self._intermediate = 0.0
        self._projection = 0.0
        self._handles: list[Any] = []

    def __enter__(self) -> _PeakWatch:
        for index in range(self._config.layers):
            names = self._config.architecture.layer(index)
            self._handles.append(self._model.layers[index].register_forward_hook(self._see_residual))
            for name in (names.output, names.down):
                self._handles.append(self._module(name).register_forward_hook(self._see_residual))
            self._handles.append(self._module(names.up).register_forward_hook(self._see_up))
            for name in (*names.qkv, names.gate):
                self._handles.append(self._module(name).register_forward_hook(self._see_projection))
            self._handles.append(self._module(names.down).register_forward_pre_hook(self._see_intermediate))
        self._handles.append(self._module(EMBEDDINGS).register_forward_hook(self._see_residual))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _module(self, tensor: str) -> Any:
        """Return the module that has the weight `tensor`."""
        return self._model.get_submodule(tensor.removesuffix(".weight"))

    def peaks(self) -> ActivationPeaks:
        return ActivationPeaks(residual=self._residual, intermediate=self._intermediate, projection=self._projection)

    def _see_residual(self, _module: object, _inputs: object, output: Any) -> None:
        values = output[0] if isinstance(output, tuple) else output
        self._residual = max(self._residual, self._peak(values))

    def _see_up(self, _module: object, _inputs: object, output: torch.Tensor) -> None:
        self._intermediate = max(self._intermediate, self._peak(output))

    def _see_projection(self, _module: object, _inputs: object, output: torch.Tensor) -> None:
        self._projection = max(self._projection, self._peak(output))

    def _see_intermediate(self, _module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        self._intermediate = max(self._intermediate, self._peak(inputs[0]))

    def _peak(self, values: torch.Tensor) -> float:
        return float(values[self.mask].abs().max())
