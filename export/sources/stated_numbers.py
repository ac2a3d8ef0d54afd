"""Numbers that a JSON file states, checked before anything is computed or allocated from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UnsupportedCheckpointError

LARGEST_SIZE = 1 << 40
"""No number of parameters, tokens or layers is larger."""
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class StatedNumbers:
    """The numbers of a JSON object. Errors are UnsupportedCheckpointError and name the file and the key."""

    values: Mapping[str, Any]
    where: str
    """Name of the file in errors."""

    def size(self, key: str, *, at_least: int = 1, default: int | None = None) -> int:
        """Return an integer from `at_least` to LARGEST_SIZE; `default` if it is not stated or null."""
        value = self._stated(key, default)
        # `type` because bool is a subclass of int
        if type(value) is not int or not at_least <= value <= LARGEST_SIZE:
            raise self._error(key, value, f"an integer from {at_least} to {LARGEST_SIZE}")
        return value

    def finite(self, key: str, *, default: float | None = None) -> float:
        """Return a finite number; `default` if it is not stated or null."""
        value = self._stated(key, default)
        try:
            number = float(value) if type(value) in (int, float) else math.nan
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._error(key, value, "a finite number")
        return number

    def _stated(self, key: str, default: float | None) -> Any:
        value = self.values.get(key)
        if value is None and default is None:
            raise UnsupportedCheckpointError(f"{self.where}: '{key}' is missing")
        return default if value is None else value

    def _error(self, key: str, value: object, wanted: str) -> UnsupportedCheckpointError:
        return UnsupportedCheckpointError(f"{self.where}: {key} is {shorten(value)}, not {wanted}")


def shorten(value: object) -> str:
    """Return the beginning of a JSON value for an error message."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
