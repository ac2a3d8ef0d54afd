"""Types that store unit vectors in fewer bytes, and how each is encoded and decoded.

The names and codes are those of sentence-transformers' `quantize_embeddings`; float16 is an addition.

Shapes: n vectors, dim components, width stored elements of a vector (dim, or dim / 8 bytes for bits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .vectors import normalize_rows

EmbeddingDtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
"""How a vector is stored: as floats, as 8-bit codes of the range of each component, or as the signs of the components.

`"binary"` and `"ubinary"` pack eight signs into a byte, which is stored as int8 and as uint8.
"""

_STORED: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "binary": np.dtype(np.int8),
    "ubinary": np.dtype(np.uint8),
}
_LAST_CODE = 255
_HIGHEST_BIT = np.uint8(0x80)
_SIGNS_OF_BYTE = 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FloatFormat:
    """Components as floats."""

    holds_nan: ClassVar[bool] = True
    stored: np.dtype[Any]
    dim: int

    @property
    def width(self) -> int:
        """Number of stored elements of a vector."""
        return self.dim

    def encode(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return `vectors` `[n, dim]` in the stored type."""
        return vectors.astype(self.stored)

    def decode(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 `[n, dim]`."""
        return stored.astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RangeFormat:
    """Components as the numbers 0…254 of equal bins between their minimum and maximum, or 255 from the maximum on."""

    holds_nan: ClassVar[bool] = False
    stored: np.dtype[Any]
    dim: int
    starts: NDArray[np.float32]
    """`[dim]`, lower edge of the first bin."""
    steps: NDArray[np.float32]
    """`[dim]`, width of a bin; 0 for a component that is constant."""

    @property
    def width(self) -> int:
        """Number of stored elements of a vector."""
        return self.dim

    def encode(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return codes `[n, dim]`; components outside their range get the first or the last code."""
        steps = np.where(self.steps == 0, np.float32(1), self.steps)
        with np.errstate(over="ignore"):
            bins = np.floor((vectors - self.starts) / steps)
        return _from_bytes(np.clip(bins, 0, _LAST_CODE).astype(np.uint8), self.stored)

    def decode(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 `[n, dim]` unit vectors, in the directions of the centres of the bins."""
        values = _to_bytes(stored).astype(np.float32)
        values += np.float32(0.5)
        # the last code is not a bin: it stands for the maximum and what was clipped to it
        np.minimum(values, np.float32(_LAST_CODE), out=values)
        values *= self.steps
        values += self.starts
        return normalize_rows(values)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignFormat:
    """Components as bits, 1 for those above 0; the first of eight is the highest bit of its byte."""

    holds_nan: ClassVar[bool] = False
    stored: np.dtype[Any]
    dim: int

    @property
    def width(self) -> int:
        """Number of stored elements of a vector."""
        return self.dim // 8

    def encode(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return bytes `[n, dim / 8]`."""
        return _from_bytes(np.packbits(vectors > 0, axis=1), self.stored)

    def decode(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 `[n, dim]` unit vectors whose components differ in their signs only."""
        signs = _SIGNS_OF_BYTE * np.float32(self.dim**-0.5)
        return np.take(signs, _to_bytes(stored), axis=0).reshape(len(stored), self.dim)


VectorFormat = FloatFormat | RangeFormat | SignFormat


def make_format(dtype: str, dim: int, ranges: NDArray[Any] | None) -> VectorFormat:
    """Return the format of vectors with `dim` components.

    Raises:
        InvalidInputError: `dtype` is unknown or cannot store `dim` components, or its `ranges` are missing or invalid.
    """
    stored = stored_type(dtype)
    match dtype:
        case "float32" | "float16":
            return FloatFormat(stored=stored, dim=dim)
        case "int8" | "uint8":
            starts, ends = _check_ranges(ranges, dtype, dim)
            return RangeFormat(stored=stored, dim=dim, starts=starts, steps=(ends - starts) / _LAST_CODE)
    if dim % 8:
        raise InvalidInputError(f"{dtype} vectors need a dim that is a multiple of 8, but dim is {dim}")
    return SignFormat(stored=stored, dim=dim)


def format_of_width(dtype: str, width: int, ranges: NDArray[Any] | None) -> VectorFormat:
    """Return the format of vectors that have `width` stored elements; raises as `make_format` does."""
    return make_format(dtype, 8 * width if dtype in ("binary", "ubinary") else width, ranges)


def stored_type(dtype: str) -> np.dtype[Any]:
    """Return the type of the stored elements; raise InvalidInputError for an unknown `dtype`."""
    if not isinstance(dtype, str) or dtype not in _STORED:
        raise InvalidInputError(f"dtype is {dtype!r}, expected one of {', '.join(_STORED)}")
    return _STORED[dtype]


def _check_ranges(ranges: NDArray[Any] | None, dtype: str, dim: int) -> NDArray[np.float32]:
    if ranges is None:
        raise InvalidInputError(
            f"{dtype} vectors need ranges, without which codes of different calls are not comparable: "
            "call fit_ranges once, on a sample of the documents, and store its result"
        )
    found = np.asarray(ranges, np.float32)
    if found.shape != (2, dim):
        raise InvalidInputError(f"ranges have shape {list(found.shape)}, but vectors of dim {dim} need [2, {dim}]")
    with np.errstate(all="ignore"):
        extents = found[1] - found[0]
    if not (np.isfinite(extents) & (extents >= 0)).all():
        raise InvalidInputError("ranges must be finite, with each minimum no larger than its maximum")
    return found


def _from_bytes(values: NDArray[np.uint8], stored: np.dtype[Any]) -> NDArray[Any]:
    return signed_bytes(values) if stored == np.int8 else values


def _to_bytes(stored: NDArray[Any]) -> NDArray[np.uint8]:
    return stored.view(np.uint8) ^ _HIGHEST_BIT if stored.dtype == np.int8 else stored


def signed_bytes(values: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return bytes minus 128, as `"binary"` stores those of `"ubinary"`."""
    return (values ^ _HIGHEST_BIT).view(np.int8)
