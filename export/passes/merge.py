"""LoRA merge: weights and adapters → weights.

W' = W + Σ weightᵢ · scalingᵢ · Bᵢ·Aᵢ (arXiv:2106.09685), in fp32. Full tensors S, from `modules_to_save` or saved by
PEFT with an adapter on the embeddings, add weightᵢ · (Sᵢ − W), so the order of adapters does not matter.

Invariant: every adapter key is used exactly once, and every adapter changes at least one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import AdapterMismatchError, list_keys
from ..sources.adapter import Adapter
from ..sources.weights import LazyTensor, Weights

_LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<table>embedding_)?(?P<side>[AB])(\.default)?(\.weight)?")
_SAVED_KEY = re.compile(r"(?P<module>.+?)(\.modules_to_save(\.default)?|\.base_layer)?\.weight")


@dataclass(frozen=True, slots=True)
class _Change:
    """The change of one tensor by one adapter."""

    target: str
    down: LazyTensor
    """A [r, in], or the full tensor of a saved module."""
    up: LazyTensor | None
    """B [out, r]; None for a saved module."""
    factor: float
    transposed: bool
    """Whether B·A is [hidden, vocabulary], the transpose of the embedding table."""

    def delta(self, base: LazyTensor) -> torch.Tensor:
        """Return the change; `base` is the tensor before any adapter."""
        if self.up is None:
            return self.factor * (self.down.fp32() - base.fp32())
        product = self.up.fp32() @ self.down.fp32()
        return self.factor * (product.T if self.transposed else product)

    def delta_rows(self, base: LazyTensor, rows: Sequence[int]) -> torch.Tensor:
        """Return `rows` of `delta` without computing the others."""
        if self.up is None:
            return self.factor * (self.down.fp32_rows(rows) - base.fp32_rows(rows))
        if self.transposed:
            return self.factor * (self.up.fp32() @ self.down.fp32()[:, list(rows)]).T
        return self.factor * (self.up.fp32_rows(rows) @ self.down.fp32())

    def is_zero(self, base: LazyTensor) -> bool:
        if self.factor == 0.0:
            return True
        if self.up is None:
            return torch.equal(self.down.fp32(), base.fp32())
        return not bool((self.up.fp32() @ self.down.fp32()).any())


def merge_adapters(weights: Weights, adapters: Iterable[Adapter]) -> dict[str, LazyTensor]:
    """Return `weights` with all adapters merged. Merged tensors are fp32 and computed when they are read.

    Raises:
        AdapterMismatchError: Keys match no tensor, shapes differ, or an adapter changes nothing. Reading a merged
            tensor raises it, too, if the values are not finite.
    """
    merged = dict(weights)
    for adapter in adapters:
        changes = _read_changes(adapter, weights)
        if all(change.is_zero(weights[change.target]) for change in changes):
            raise AdapterMismatchError(
                f"adapter '{adapter.reference}' changes nothing: every B·A is zero; was it trained and saved?"
            )
        for change in changes:
            merged[change.target] = _changed(merged[change.target], weights[change.target], change)
    return merged


def saved_tensors(adapter: Adapter) -> dict[str, LazyTensor]:
    """Return the full tensors of an adapter, under the decoder's names."""
    matches = ((_SAVED_KEY.fullmatch(key), tensor) for key, tensor in adapter.tensors.items() if ".lora_" not in key)
    return {_target(found["module"]): tensor for found, tensor in matches if found is not None}


def _changed(merged: LazyTensor, base: LazyTensor, change: _Change) -> LazyTensor:
    return LazyTensor(
        base.shape,
        torch.float32,
        lambda: _require_finite(change.target, merged.fp32() + change.delta(base)),
        lambda rows: _require_finite(change.target, merged.fp32_rows(rows) + change.delta_rows(base, rows)),
    )


def _require_finite(name: str, values: torch.Tensor) -> torch.Tensor:
    if not all(limit.isfinite() for limit in values.aminmax()):
        raise AdapterMismatchError(
            f"{name} is not finite after the merge; is lora_alpha in adapter_config.json, or a weight, too large?"
        )
    return values


def _read_changes(adapter: Adapter, weights: Weights) -> list[_Change]:
    pairs: dict[str, dict[str, LazyTensor]] = {}
    saved: dict[str, LazyTensor] = {}
    unmatched = []
    for key, tensor in adapter.tensors.items():
        lora = _LORA_KEY.fullmatch(key)
        full = None if lora else _SAVED_KEY.fullmatch(key)
        found = lora or full
        if found is None or _target(found["module"]) not in weights:
            unmatched.append(key)
        elif lora:
            pairs.setdefault(lora["module"], {})[(lora["table"] or "") + lora["side"]] = tensor
        else:
            saved[found["module"]] = tensor
    unmatched += [f"{module}.lora_{'/'.join(pair)}" for module, pair in pairs.items() if not _complete(pair)]
    if not adapter.tensors:
        raise AdapterMismatchError(f"adapter '{adapter.reference}' has no tensors; was it trained and saved?")
    if unmatched:
        raise AdapterMismatchError(
            f"adapter '{adapter.reference}': {len(unmatched)} of its {len(adapter.tensors)} keys match no tensor of "
            f"the base: {list_keys(unmatched)}; was it trained on another model?"
        )
    changes = [_pair_change(adapter, module, pair) for module, pair in pairs.items()]
    changes += [_Change(_target(name), tensor, None, adapter.reference.weight, False) for name, tensor in saved.items()]
    _check_shapes(adapter, changes, weights)
    return changes


def _target(module: str) -> str:
    """Return the decoder's name of the module's weight."""
    return module.removeprefix("base_layer.").removeprefix("model.") + ".weight"


def _complete(pair: Mapping[str, LazyTensor]) -> bool:
    return set(pair) in ({"A", "B"}, {"embedding_A", "embedding_B"})


def _pair_change(adapter: Adapter, module: str, pair: Mapping[str, LazyTensor]) -> _Change:
    table = "embedding_A" in pair
    side = "embedding_" if table else ""
    down, up = pair[side + "A"], pair[side + "B"]
    if down.shape[0] != adapter.rank(module):
        raise AdapterMismatchError(
            f"adapter '{adapter.reference}': {module} has rank {down.shape[0]}, but adapter_config.json has "
            f"{adapter.rank(module)}; are both files of the same adapter?"
        )
    factor = adapter.reference.weight * adapter.scaling(module)
    return _Change(_target(module), down, up, factor, table)


def _check_shapes(adapter: Adapter, changes: list[_Change], weights: Weights) -> None:
    wrong = []
    for change in changes:
        shape = change.down.shape if change.up is None else (change.up.shape[0], change.down.shape[1])
        expected = weights[change.target].shape
        if (tuple(reversed(shape)) if change.transposed else shape) != expected:
            wrong.append(f"{change.target} {list(shape)} instead of {list(expected)}")
    if wrong:
        raise AdapterMismatchError(
            f"adapter '{adapter.reference}' was trained on a base with other shapes: {list_keys(wrong)}"
        )
