"""Arrays of vectors: their checks, and their division into blocks that bound temporary memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InvalidInputError

BLOCK_COMPONENTS = 1 << 18
"""Components that are converted at once, 1 MiB in float32."""


def check_rows(vectors: ArrayLike, name: str) -> NDArray[Any]:
    """Return `vectors` as an array `[n, dim]`; raise InvalidInputError for another shape."""
    rows = np.asarray(vectors)
    if rows.ndim != 2 or not rows.shape[1]:
        raise InvalidInputError(f"{name} have shape {list(rows.shape)}, expected [n, dim]")
    return rows


def check_float_rows(vectors: ArrayLike, name: str) -> NDArray[np.floating[Any]]:
    """Return `vectors` as an array of floats `[n, dim]`; raise InvalidInputError for another type or shape."""
    rows = check_rows(vectors, name)
    if not is_float(rows):
        raise InvalidInputError(f"{name} are of type {rows.dtype}, expected float32")
    return rows


def is_float(rows: NDArray[Any]) -> bool:
    """Whether the elements are floats."""
    return np.issubdtype(rows.dtype, np.floating)


def iter_blocks(count: int, dim: int) -> Iterator[slice]:
    """Yield slices of consecutive rows that cover `count` vectors of `dim` components."""
    rows = max(1, BLOCK_COMPONENTS // dim)
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))
