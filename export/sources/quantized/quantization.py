"""The stored tensors of a quantized checkpoint, and what config.json states about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UnsupportedCheckpointError, list_keys
from ..stated_numbers import StatedNumbers
from ..weights import LazyTensor, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """The tensors of a quantized checkpoint by their stored names, and the settings of the quantization."""

    tensors: Weights
    settings: Mapping[str, Any]
    where: str
    """Names the settings in errors."""

    def refuse(self, what: str) -> UnsupportedCheckpointError:
        """Return the error that `what` is the reason why the checkpoint cannot be dequantized."""
        return UnsupportedCheckpointError(f"{self.where}: {what}")

    def size(self, key: str, default: int | None = None) -> int:
        """Return the positive integer `key` of the settings."""
        return StatedNumbers(self.settings, self.where).size(key, default=default)

    def ending_with(self, end: str) -> dict[str, LazyTensor]:
        """Return module → tensor for all names that end with `end`."""
        return {name.removesuffix(end): tensor for name, tensor in self.tensors.items() if name.endswith(end)}

    def without(self, ends: tuple[str, ...]) -> dict[str, LazyTensor]:
        """Return the tensors whose names do not end with one of `ends`."""
        return {name: tensor for name, tensor in self.tensors.items() if not name.endswith(ends)}

    def require(self, modules: Iterable[str], ends: Sequence[str]) -> None:
        """Raise UnsupportedCheckpointError unless each of `modules` has a tensor with each of `ends`."""
        missing = [f"{module}{end}" for module in modules for end in ends if f"{module}{end}" not in self.tensors]
        if missing:
            raise self.refuse(f"quantized weights lack {list_keys(missing)}; is the download complete?")
