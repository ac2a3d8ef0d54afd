"""Results that a failed call leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PartialResults:
    """Results that arrived before a call failed."""

    results: NDArray[np.float32]
    """As the call would have returned them, `[n, dim]` vectors or `[n]` scores by position; NaN where there is none."""
    done: NDArray[np.bool_]
    """`[n]`, True where there is a result."""
