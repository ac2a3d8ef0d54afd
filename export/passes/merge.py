"""LoRA merge: weights and adapters → weights and a report of each adapter.

W' = W + Σ ΔWᵢ in fp32, where every ΔWᵢ is that of adapter i alone on W (see `tensor_change`), so the order of adapters
does not matter.

Invariant: every adapter key is used exactly once, and every adapter changes at least one tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ...client.manifest import MergeReport
from ..errors import AdapterMismatchError, list_keys
from ..sources.adapter import Adapter
from ..sources.adapter_tensors import Part, decoder_module, sort_tensors
from ..sources.weights import LazyTensor, Weights
from ..threads import one_thread_per_operator
from .change_sizes import measure_change, report_changes
from .tensor_change import LowRankPair, TensorChange, TrainedRows

_LINEAR, _TABLE = {Part.DOWN, Part.UP}, {Part.TABLE_DOWN, Part.TABLE_UP}
_REST = {Part.WEIGHT, Part.BIAS, Part.TRAINED_ON, Part.TOKENS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """Merged weights."""

    weights: dict[str, LazyTensor]
    """Merged tensors are fp32 and computed when they are read."""
    reports: tuple[MergeReport, ...]
    """How much each adapter changes, in the order of the adapters."""


def merge_adapters(weights: Weights, adapters: Iterable[Adapter], used: Collection[str] | None = None) -> Merge:
    """Return `weights` with all adapters merged.

    Args:
        weights: The base.
        adapters: Adapters with their weights.
        used: Names of the tensors that the model uses; None if it uses all. An adapter must change one of them.

    Raises:
        AdapterMismatchError: Keys match no tensor, shapes differ, an adapter changes nothing, or merged values are not
            finite.
    """
    merged, reports = dict(weights), []
    for adapter in adapters:
        changes = read_changes(adapter, weights)
        with one_thread_per_operator():
            sizes = [measure_change(change, weights) for change in changes]
        reports.append(report_changes(adapter.reference, sizes, used))
        for change, size in zip(changes, sizes, strict=True):
            if size.change:
                merged[change.target] = _changed(merged[change.target], weights[change.target], change)
    return Merge(weights=merged, reports=tuple(reports))


def read_changes(adapter: Adapter, weights: Weights) -> list[TensorChange]:
    """Return the changes of `adapter` to tensors of `weights`; raise AdapterMismatchError if it does not fit."""
    if not adapter.tensors:
        raise AdapterMismatchError(f"adapter '{adapter.reference}' has no tensors; was it trained and saved?")
    found = sort_tensors(adapter.tensors)
    if adapter.settings.get("trainable_token_indices") and not any(
        Part.TOKENS in parts for parts in found.modules.values()
    ):
        raise AdapterMismatchError(
            f"adapter '{adapter.reference}': adapter_config.json has trainable_token_indices, but no tensor has their "
            "values; are both files of the same adapter?"
        )
    initial = sort_tensors(adapter.initial or {}).modules
    unmatched, changes = list(found.unknown), []
    for module, parts in found.modules.items():
        wrong = _unmatched(adapter, module, parts, weights)
        unmatched += wrong
        if not wrong:
            changes += _module_changes(adapter, module, parts, initial.get(module, {}))
    targets = [change.target for change in changes]
    unmatched += sorted({target for target in targets if targets.count(target) > 1})
    if unmatched:
        raise AdapterMismatchError(
            f"adapter '{adapter.reference}': {len(unmatched)} of its {len(adapter.tensors)} keys match no tensor of "
            f"the base: {list_keys(unmatched)}; was it trained on another model?"
        )
    _check_shapes(adapter, changes, weights)
    return changes


def _changed(merged: LazyTensor, base: LazyTensor, change: TensorChange) -> LazyTensor:
    def values(rows: Sequence[int] | None = None) -> torch.Tensor:
        before = merged.fp32() if rows is None else merged.fp32_rows(rows)
        return _require_finite(change.target, change.delta(base, rows).add_(before))

    by_rows = base.load_rows is not None and not change.needs_all_rows
    return LazyTensor(base.shape, torch.float32, values, values if by_rows else None)


def _require_finite(name: str, values: torch.Tensor) -> torch.Tensor:
    if not all(limit.isfinite() for limit in values.aminmax()):
        raise AdapterMismatchError(
            f"{name} is not finite after the merge; is lora_alpha in adapter_config.json, or a weight, too large?"
        )
    return values


def _unmatched(adapter: Adapter, module: str, parts: Mapping[Part, LazyTensor], weights: Weights) -> list[str]:
    """Return the keys of a module that cannot be merged."""
    keys = set(parts)
    low_rank = keys - _REST - {Part.MAGNITUDE, Part.UP_BIAS}
    target = decoder_module(module)
    complete = low_rank in (set(), _LINEAR, _TABLE)
    wrong = set() if complete and f"{target}.weight" in weights else set(keys)
    if Part.MAGNITUDE in keys and (not low_rank or not adapter.settings.get("use_dora")):
        wrong.add(Part.MAGNITUDE)
    if low_rank and adapter.settings.get("use_dora") and Part.MAGNITUDE not in keys:
        return [f"{module}.lora_A without lora_magnitude_vector"]
    if low_rank and Part.WEIGHT in keys:
        wrong.add(Part.WEIGHT)
    if Part.TOKENS in keys and (low_rank or not adapter.trained_tokens(module)):
        wrong.add(Part.TOKENS)
    if f"{target}.bias" not in weights:
        if Part.UP_BIAS in keys:
            raise AdapterMismatchError(
                f"adapter '{adapter.reference}': {module}.lora_B has a bias, but {target} of the base has none that it "
                "could be added to; train it without lora_bias"
            )
        wrong |= keys & {Part.BIAS}
    return [f"{module}.{part}" + (".weight" if part in _LINEAR else "") for part in sorted(wrong)]


def _module_changes(
    adapter: Adapter, module: str, parts: Mapping[Part, LazyTensor], initial: Mapping[Part, LazyTensor]
) -> list[TensorChange]:
    """Return the changes of the module's weight and bias."""
    target, weight, scaling = decoder_module(module), adapter.reference.weight, adapter.scaling(module)
    changes = []
    tokens, ids = parts.get(Part.TOKENS), adapter.trained_tokens(module)
    change = TensorChange(
        target=f"{target}.weight",
        weight=weight,
        start=parts.get(Part.WEIGHT, parts.get(Part.TRAINED_ON)),
        pairs=_pairs(adapter, module, parts, initial, scaling),
        magnitude=parts.get(Part.MAGNITUDE),
        tokens=None if tokens is None or ids is None else TrainedRows(rows=ids, values=tokens),
    )
    if change.start is not None or change.pairs or change.tokens is not None:
        changes.append(change)
    if Part.BIAS in parts or Part.UP_BIAS in parts:
        start, added = parts.get(Part.BIAS), parts.get(Part.UP_BIAS)
        changes.append(
            TensorChange(target=f"{target}.bias", weight=weight, start=start, bias=added, bias_scaling=scaling)
        )
    return changes


def _pairs(
    adapter: Adapter,
    module: str,
    parts: Mapping[Part, LazyTensor],
    initial: Mapping[Part, LazyTensor],
    scaling: float,
) -> tuple[LowRankPair, ...]:
    """Return s · B·A, and − s · B₀·A₀ if the adapter began with a part of its base."""
    transposed = Part.TABLE_DOWN in parts
    down, up = (Part.TABLE_DOWN, Part.TABLE_UP) if transposed else (Part.DOWN, Part.UP)
    if down not in parts:
        return ()
    rank = parts[down].shape[0]
    if rank != adapter.rank(module):
        raise AdapterMismatchError(
            f"adapter '{adapter.reference}': {module} has rank {rank}, but adapter_config.json has "
            f"{adapter.rank(module)}; are both files of the same adapter?"
        )
    pair = LowRankPair(down=parts[down], up=parts[up], scaling=scaling, transposed=transposed)
    if adapter.initial is None:
        return (pair,)
    if {part: tensor.shape for part, tensor in initial.items() if part in (down, up)} != {
        part: parts[part].shape for part in (down, up)
    }:
        raise AdapterMismatchError(
            f"adapter '{adapter.reference}': {adapter.initial_directory} has no {module} of the same shape; "
            "is it the initial adapter of this one?"
        )
    before = LowRankPair(down=initial[down], up=initial[up], scaling=-scaling, transposed=transposed)
    return (pair, before)


def _check_shapes(adapter: Adapter, changes: list[TensorChange], weights: Weights) -> None:
    wrong = []
    for change in changes:
        expected = weights[change.target].shape
        for shape, allowed in _shapes(change, expected):
            if shape != allowed:
                wrong.append(f"{change.target} {list(shape)} instead of {list(allowed)}")
        if change.tokens is not None and max(change.tokens.rows) >= expected[0]:
            raise AdapterMismatchError(
                f"adapter '{adapter.reference}' trains token {max(change.tokens.rows)}, but {change.target} has only "
                f"{expected[0]} rows; save the adapter with save_embedding_layers=True if the vocabulary was resized"
            )
    if wrong:
        raise AdapterMismatchError(
            f"adapter '{adapter.reference}' was trained on a base with other shapes: {list_keys(wrong)}"
        )


def _shapes(change: TensorChange, expected: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the shape of each part of a change, with the shape that it must have."""
    shapes = [(pair.shape, expected) for pair in change.pairs]
    shapes += [(tensor.shape, expected) for tensor in (change.start, change.bias) if tensor is not None]
    if change.magnitude is not None:
        by_columns = any(pair.transposed for pair in change.pairs)
        shapes.append((change.magnitude.shape, expected[1:] if by_columns else expected[:1]))
    if change.tokens is not None:
        shapes.append((change.tokens.values.shape, (len(change.tokens.rows), *expected[1:])))
    return shapes
