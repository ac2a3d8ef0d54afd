"""Results that a failed call leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PartialResults:
    """Results that arrived before a call failed."""

    results: NDArray[Any]
    """`[n, dim]` vectors or `[n]` scores by position, in float32 or in the type that the server sent; NaN where there
    is none, or 0 in types without NaN."""
    done: NDArray[np.bool_]
    """`[n]`, True where there is a result."""
