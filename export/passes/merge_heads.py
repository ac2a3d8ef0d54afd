"""Merge of adapters that may also change a head, for exports and for merged checkpoints.

Besides the decoder, an adapter may have LoRA on the LM head, a full LM head, or the score head of a classifier.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ...client.manifest import MergeReport
from ..architectures import EMBEDDINGS, LM_HEAD, SCORE_HEAD
from ..errors import AdapterMismatchError
from ..sources.adapter import Adapter
from ..sources.adapter_tensors import Part, decoder_module, sort_tensors
from ..sources.checkpoint import Checkpoint
from ..sources.weights import LazyTensor, Weights
from .merge import Merge, merge_adapters, read_changes


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedModel:
    """A merged checkpoint and its class in transformers."""

    weights: dict[str, LazyTensor]
    """Decoder and head, under the decoder's names."""
    model_class: str
    """Class in transformers, such as `Qwen3ForCausalLM`."""
    tied: bool
    """`tie_word_embeddings`: whether the LM head is the embedding table."""
    reports: tuple[MergeReport, ...]


def merge_with_heads(checkpoint: Checkpoint, adapters: Sequence[Adapter], used: Collection[str] | None = None) -> Merge:
    """Merge all adapters into the checkpoint's weights, heads included.

    A tied LM head starts as a copy of the embeddings, because an adapter changes only one of them, unless it trains
    tokens, which PEFT ties as well. A score head that only adapters have starts as zeros, so that it becomes the saved
    one.

    Args:
        checkpoint: The base.
        adapters: Adapters with their weights.
        used: Names of the tensors that the model uses; None if it uses all.

    Raises:
        AdapterMismatchError: See `merge_adapters`.
    """
    weights = _open_heads(checkpoint, adapters)
    merge = merge_adapters(weights, adapters, used)
    if checkpoint.config.tied and _ties_tokens(adapters, weights):
        merge.weights[LM_HEAD] = merge.weights[EMBEDDINGS]
    return merge


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
    merge = merge_with_heads(base, adapters)
    merged = merge.weights
    require_score_heads(adapters, merged)
    decoder = {name: merged[name] for name in base.config.tensor_shapes()}
    bare, causal, classifier = base.config.architecture.model_classes
    if SCORE_HEAD in merged:
        weights, model_class, tied = decoder | {SCORE_HEAD: merged[SCORE_HEAD]}, classifier, base.config.tied
    elif LM_HEAD not in merged or (base.config.tied and merged[LM_HEAD] is merged[EMBEDDINGS]):
        weights, model_class, tied = decoder, base.config.model_class, base.config.tied
    else:
        head_changed = merged[LM_HEAD] is not base.weights.get(LM_HEAD, base.weights[EMBEDDINGS])
        table_changed = merged[EMBEDDINGS] is not base.weights[EMBEDDINGS]
        if base.config.model_class == bare and not head_changed:
            weights, model_class, tied = decoder, bare, base.config.tied
        elif base.config.tied and not head_changed and not table_changed:
            weights, model_class, tied = decoder | {LM_HEAD: merged[LM_HEAD]}, base.config.model_class, True
        else:
            weights, model_class, tied = decoder | {LM_HEAD: merged[LM_HEAD]}, causal, False
    return MergedModel(weights=weights, model_class=model_class, tied=tied, reports=merge.reports)


def _ties_tokens(adapters: Sequence[Adapter], weights: Weights) -> bool:
    """Whether all that adapters of a tied model change in embeddings and LM head are tokens that both share."""
    changes = [
        change
        for adapter in adapters
        for change in read_changes(adapter, weights)
        if change.target in (EMBEDDINGS, LM_HEAD)
    ]
    stated = [adapter.settings.get("trainable_token_indices") for adapter in adapters]
    separate = any(isinstance(tokens, Mapping) and len(tokens) > 1 for tokens in stated)
    return bool(changes) and not separate and all(change.tokens is not None for change in changes)


def _open_heads(checkpoint: Checkpoint, adapters: Iterable[Adapter]) -> dict[str, LazyTensor]:
    weights = dict(checkpoint.weights)
    if checkpoint.config.tied and LM_HEAD not in weights:
        weights[LM_HEAD] = weights[EMBEDDINGS]
    for adapter in adapters:
        for module, parts in sort_tensors(adapter.tensors).modules.items():
            if f"{decoder_module(module)}.weight" == SCORE_HEAD and Part.WEIGHT in parts and SCORE_HEAD not in weights:
                weights[SCORE_HEAD] = _zeros(parts[Part.WEIGHT].shape)
    return weights


def _zeros(shape: tuple[int, ...]) -> LazyTensor:
    return LazyTensor(shape, torch.float32, lambda: torch.zeros(shape), lambda rows: torch.zeros(len(rows), *shape[1:]))
