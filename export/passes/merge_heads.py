"""Merge of adapters that may also change a head, for exports and for merged checkpoints.

Besides the decoder, an adapter may have LoRA on the LM head, a full LM head, or the score head of a classifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from ..architectures import EMBEDDINGS, LM_HEAD, SCORE_HEAD
from ..errors import AdapterMismatchError
from ..sources.adapter import Adapter
from ..sources.checkpoint import Checkpoint
from ..sources.weights import LazyTensor, Weights
from .merge import merge_adapters, saved_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedModel:
    """A merged checkpoint and its class in transformers."""

    weights: dict[str, LazyTensor]
    """Decoder and head, under the decoder's names."""
    model_class: str
    """Class in transformers, such as `Qwen3ForCausalLM`."""
    tied: bool
    """`tie_word_embeddings`: whether the LM head is the embedding table."""


def merge_with_heads(checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> dict[str, LazyTensor]:
    """Return the checkpoint's weights, heads included, with all adapters merged.

    A tied LM head starts as a copy of the embeddings, because an adapter changes only one of them. A score head that
    only adapters have starts as zeros, so that it becomes the saved one.

    Raises:
        AdapterMismatchError: See `merge_adapters`.
    """
    return merge_adapters(_open_heads(checkpoint, adapters), adapters)


def require_score_heads(adapters: Iterable[Adapter], weights: Weights) -> None:
    """Raise AdapterMismatchError if an adapter was trained as a classifier and there is no score head."""
    for adapter in adapters:
        if adapter.task_type == "SEQ_CLS" and SCORE_HEAD not in weights:
            raise AdapterMismatchError(
                f"adapter '{adapter.reference}' was trained as a classifier, but neither it nor its base has "
                "score.weight; save it with modules_to_save=['score']"
            )


def merge_model(base: Checkpoint, adapters: Sequence[Adapter]) -> MergedModel:
    """Merge the adapters and choose the transformers class that has the resulting heads.

    Raises:
        AdapterMismatchError: An adapter does not fit, changes nothing, or is missing its score head.
    """
    merged = merge_with_heads(base, adapters)
    require_score_heads(adapters, merged)
    decoder = {name: merged[name] for name in base.config.tensor_shapes()}
    bare, causal, classifier = base.config.architecture.model_classes
    if SCORE_HEAD in merged:
        head = {SCORE_HEAD: merged[SCORE_HEAD]}
        return MergedModel(weights=decoder | head, model_class=classifier, tied=base.config.tied)
    if LM_HEAD not in merged:
        return MergedModel(weights=decoder, model_class=base.config.model_class, tied=base.config.tied)
    head_changed = merged[LM_HEAD] is not base.weights.get(LM_HEAD, base.weights[EMBEDDINGS])
    table_changed = merged[EMBEDDINGS] is not base.weights[EMBEDDINGS]
    if base.config.model_class == bare and not head_changed:
        return MergedModel(weights=decoder, model_class=bare, tied=base.config.tied)
    if base.config.tied and not head_changed and not table_changed:
        stored = {LM_HEAD: merged[LM_HEAD]} if LM_HEAD in base.weights else {}
        return MergedModel(weights=decoder | stored, model_class=base.config.model_class, tied=True)
    return MergedModel(weights=decoder | {LM_HEAD: merged[LM_HEAD]}, model_class=causal, tied=False)


def _open_heads(checkpoint: Checkpoint, adapters: Iterable[Adapter]) -> dict[str, LazyTensor]:
    weights = dict(checkpoint.weights)
    if checkpoint.config.tied and LM_HEAD not in weights:
        weights[LM_HEAD] = weights[EMBEDDINGS]
    for adapter in adapters:
        saved = saved_tensors(adapter).get(SCORE_HEAD)
        if saved is not None and SCORE_HEAD not in weights:
            weights[SCORE_HEAD] = _zeros(saved.shape)
    return weights


def _zeros(shape: tuple[int, ...]) -> LazyTensor:
    return LazyTensor(shape, torch.float32, lambda: torch.zeros(shape), lambda rows: torch.zeros(len(rows), *shape[1:]))
