"""Equal inputs of one call, which are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Duplicates:
    """Which inputs of a call are computed, and which take the result of another one."""

    computed: NDArray[np.intp]
    """`[computed]`, positions of the inputs that equal none before them."""
    copies: NDArray[np.intp]
    """`[copies]`, positions of the other inputs."""
    originals: NDArray[np.intp]
    """`[copies]`, position of the first input that equals each of them."""

    @classmethod
    def find(cls, inputs: Sequence[str]) -> Duplicates:
        """Compare the prompted texts of a call."""
        first: dict[str, int] = {}
        originals = [first.setdefault(text, position) for position, text in enumerate(inputs)]
        positions = np.arange(len(inputs))
        found = np.asarray(originals, np.intp)
        is_copy = found != positions
        return cls(positions[~is_copy], positions[is_copy], found[is_copy])

    def select(self, inputs: Sequence[T]) -> Sequence[T]:
        """Return the inputs that are computed."""
        return inputs if not len(self.copies) else [inputs[position] for position in self.computed.tolist()]

    def fill(self, results: NDArray[Any]) -> None:
        """Copy results `[inputs, …]` to the inputs that were not computed, in place."""
        if len(self.copies):
            results[self.copies] = results[self.originals]
