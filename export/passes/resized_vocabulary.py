"""A base with the embeddings that an adapter was trained on, if their number differs from the base's.

Training programs add tokens, or remove the unused rows of a padded table; PEFT then saves the whole tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..architectures import EMBEDDINGS, LM_HEAD
from ..errors import AdapterMismatchError
from ..sources.adapter import Adapter
from ..sources.adapter_tensors import Part, decoder_module, sort_tensors
from ..sources.checkpoint import Checkpoint
from ..sources.weights import LazyTensor


def resize_vocabulary(checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> Checkpoint:
    """Return the checkpoint with the tables of the adapter that has a table of another length, if there is one.

    Raises:
        AdapterMismatchError: There are several adapters or a weight other than 1, or the LM head is not resized.
    """
    config = checkpoint.config
    found = [(adapter, _tables(adapter)) for adapter in adapters]
    resized = [
        (adapter, tables)
        for adapter, tables in found
        if EMBEDDINGS in tables and _is_resized(tables[EMBEDDINGS].shape, (config.vocabulary, config.hidden))
    ]
    if not resized:
        return checkpoint
    adapter, tables = resized[0]
    vocabulary = tables[EMBEDDINGS].shape[0]
    if len(adapters) > 1 or adapter.reference.weight != 1.0:
        raise AdapterMismatchError(
            f"adapter '{adapter.reference}' has a vocabulary of {vocabulary} tokens instead of {config.vocabulary}; "
            "it can only be merged alone and with a weight of 1"
        )
    weights = dict(checkpoint.weights)
    weights[EMBEDDINGS] = _stored_like(weights[EMBEDDINGS], tables[EMBEDDINGS])
    head = weights.pop(LM_HEAD, None)
    if head is not None and not config.tied:
        if LM_HEAD not in tables or tables[LM_HEAD].shape != tables[EMBEDDINGS].shape:
            raise AdapterMismatchError(
                f"adapter '{adapter.reference}' has {vocabulary} embeddings instead of {config.vocabulary}, but no LM "
                "head of this size; save it with save_embedding_layers=True"
            )
        weights[LM_HEAD] = _stored_like(head, tables[LM_HEAD])
    return checkpoint.with_vocabulary(weights, vocabulary)


def _tables(adapter: Adapter) -> dict[str, LazyTensor]:
    """Return the adapter's whole tables as they were before training, if it has them, under the decoder's names."""
    tables = {}
    for module, parts in sort_tensors(adapter.tensors).modules.items():
        table = parts.get(Part.TRAINED_ON, parts.get(Part.WEIGHT))
        if table is not None:
            tables[f"{decoder_module(module)}.weight"] = table
    return tables


def _is_resized(shape: tuple[int, ...], base: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[1] == base[1] and shape[0] != base[0]


def _stored_like(base: LazyTensor, table: LazyTensor) -> LazyTensor:
    """Return the table in the dtype of the base."""
    return LazyTensor(
        table.shape, base.dtype, lambda: table.load().to(base.dtype), lambda rows: table.fp32_rows(rows).to(base.dtype)
    )
