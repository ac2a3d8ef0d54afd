"""The caller's array that vectors are written to as they arrive."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .vector_formats import VectorFormat


class OutputArray:
    """Fills an array from its first row on."""

    def __init__(self, out: NDArray[Any], vector_format: VectorFormat, texts: object) -> None:
        """Check the array.

        Args:
            out: The array.
            vector_format: Format of the vectors.
            texts: The texts, whose number is checked if it is known.

        Raises:
            InvalidInputError: Vectors of this format, or so many of them, cannot be written to the array.
        """
        expected = f"out must be a writable {vector_format.stored} array [n, {vector_format.width}]"
        if not isinstance(out, np.ndarray):
            raise InvalidInputError(f"{expected}, but it is of type {type(out).__name__}")
        if out.dtype != vector_format.stored or out.ndim != 2 or out.shape[1] != vector_format.width:
            raise InvalidInputError(f"{expected}, but it is {out.dtype} {list(out.shape)}")
        if not out.flags.writeable:
            raise InvalidInputError(f"{expected}, but it is read-only")
        if isinstance(texts, Sized) and len(texts) > len(out):
            raise InvalidInputError(f"out has {len(out):,} rows for {len(texts):,} texts")
        self._out = out
        self._rows = 0

    @property
    def written(self) -> NDArray[Any]:
        """View of the rows that have been written."""
        return self._out[: self._rows]

    def write(self, vectors: NDArray[Any]) -> None:
        """Write vectors `[rows, width]`; raise InvalidInputError if there is no room for them."""
        end = self._rows + len(vectors)
        if end > len(self._out):
            raise InvalidInputError(f"out has {len(self._out):,} rows, and there are more texts: give a larger array")
        self._out[self._rows : end] = vectors
        self._rows = end
