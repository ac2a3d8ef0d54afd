"""The tensors of an adapter, sorted by module and by the part that they play."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from .weights import LazyTensor, remove_wrappers


class Part(StrEnum):
    """What a tensor of an adapter is to its module."""

    DOWN = "lora_A"
    """A [r, in]."""
    UP = "lora_B"
    """B [out, r]."""
    UP_BIAS = "lora_B.bias"
    """[out], added to the bias of the module."""
    TABLE_DOWN = "lora_embedding_A"
    """A [r, vocabulary]."""
    TABLE_UP = "lora_embedding_B"
    """B [hidden, r]."""
    MAGNITUDE = "lora_magnitude_vector"
    """[out], or [hidden] of the embeddings: DoRA's norms."""
    TOKENS = "trainable_tokens_delta"
    """[tokens, hidden]: rows of the embeddings after training."""
    WEIGHT = "weight"
    """The module's weight after training."""
    BIAS = "bias"
    """The module's bias after training."""
    TRAINED_ON = "base_layer.weight"
    """The module's weight that the adapter was trained on."""


_NAME = r"(\.default)?"
_SUFFIXES = {
    Part.DOWN: rf"\.lora_A{_NAME}(\.weight)?",
    Part.UP: rf"\.lora_B{_NAME}(\.weight)?",
    Part.UP_BIAS: rf"\.lora_B{_NAME}\.bias",
    Part.TABLE_DOWN: rf"\.lora_embedding_A{_NAME}",
    Part.TABLE_UP: rf"\.lora_embedding_B{_NAME}",
    Part.MAGNITUDE: rf"\.lora_magnitude_vector{_NAME}(\.weight)?",
    Part.TOKENS: rf"(\.token_adapter)?\.trainable_tokens_delta{_NAME}",
    Part.TRAINED_ON: r"(\.token_adapter)?\.(base_layer|original_module)\.weight",
    Part.BIAS: r"(\.base_layer)?\.bias",
    Part.WEIGHT: rf"(\.modules_to_save{_NAME})?\.weight",
}
_KEYS = {part: re.compile(f"(?P<module>.+?){suffix}") for part, suffix in _SUFFIXES.items()}
_PEFT = re.compile(r"^(base_model\.model\.)?")
_CONTAINERS = re.compile(r"^((base_model|base_layer|module|model|auto_model|0)\.)+")
"""Modules around the decoder: of PEFT, DataParallel, a causal LM, and sentence-transformers."""

ModuleTensors = Mapping[str, Mapping[Part, LazyTensor]]
"""Module, as PEFT's patterns name it → its tensors."""


@dataclass(frozen=True, slots=True)
class SortedTensors:
    """Tensors by module, and the keys that have no known form or are duplicate."""

    modules: ModuleTensors
    unknown: tuple[str, ...]


def sort_tensors(tensors: Mapping[str, LazyTensor]) -> SortedTensors:
    """Sort tensors by module and part."""
    modules: dict[str, dict[Part, LazyTensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        part, module = _parse(key)
        # a resized module in modules_to_save is stored under both of its names
        if part is None or (part in modules.get(module, {}) and part is not Part.WEIGHT):
            unknown.append(key)
        else:
            modules.setdefault(module, {})[part] = tensor
    return SortedTensors(modules, tuple(unknown))


def decoder_module(module: str) -> str:
    """Return the decoder's name of an adapter's module."""
    return _CONTAINERS.sub("", module)


def peft_key(key: str) -> str:
    """Return a key without wrappers of the training program and without PEFT's own prefix."""
    return _PEFT.sub("", remove_wrappers(key))


def _parse(key: str) -> tuple[Part | None, str]:
    for part, pattern in _KEYS.items():
        found = pattern.fullmatch(key)
        if found is not None:
            return part, found["module"]
    return None, key
