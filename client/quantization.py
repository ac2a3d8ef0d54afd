"""Quantization of unit vectors, for indexes that are smaller than float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .vector_blocks import check_float_rows, iter_blocks
from .vector_formats import EmbeddingDtype, make_format


def quantize_embeddings(
    vectors: NDArray[np.float32], dtype: EmbeddingDtype, *, ranges: NDArray[np.float32] | None = None
) -> NDArray[Any]:
    """Convert unit vectors to a smaller type.

    The codes are those of sentence-transformers 5.7 and later with the same `ranges`. Differences: ranges are never
    fitted to `vectors`, and for binary types `dim` must be a multiple of 8 instead of being padded with zeros. Earlier
    versions of sentence-transformers wrap components outside their range around; here they are clipped.

    Args:
        vectors: float32 `[n, dim]`, as the client returns them.
        dtype: `"float32"`; `"float16"`; `"int8"` or `"uint8"`, which divide the range of each component into 255 equal
            bins; `"binary"` or `"ubinary"`, which keep one bit of a component, 1 above zero.
        ranges: float32 `[2, dim]` from `fit_ranges`, for int8 and uint8; the other types do not use it. Components
            outside their range are clipped to it.

    Returns:
        `[n, dim]` of type float32, float16, int8 or uint8; for `"binary"` and `"ubinary"` int8 and uint8
        `[n, dim / 8]`. The bits of a byte are in the order of the components, the first one highest, and `"binary"`
        is the byte minus 128. The result is `vectors` itself if it already has the type.

    Raises:
        InvalidInputError: `dtype` is unknown, `vectors` is not an array of floats `[n, dim]`, `ranges` are missing or
            invalid, `dim` is not a multiple of 8 for a binary type, or a vector has NaN or infinite components that
            the type cannot hold. float32 and float16 keep NaN.
    """
    rows = check_float_rows(vectors, "vectors")
    form = make_format(dtype, rows.shape[1], ranges)
    if rows.dtype == form.stored:
        return rows
    codes = np.empty((len(rows), form.width), form.stored)
    for block in iter_blocks(len(rows), form.dim):
        if not form.holds_nan:
            _check_finite(rows[block], block.start, dtype)
        codes[block] = form.encode(rows[block])
    return codes


def fit_ranges(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the range of each component, for `quantize_embeddings` and `similarity`.

    Fit the ranges once, on a sample of the documents, and store them with the codes, which have no meaning without
    them.

    Args:
        vectors: float32 `[n, dim]`, at least two.

    Returns:
        float32 `[2, dim]`, minima and maxima.

    Raises:
        InvalidInputError: `vectors` is not an array of floats `[n, dim]`, has fewer than two rows, or has NaN or
            infinite components.
    """
    rows = check_float_rows(vectors, "vectors")
    if len(rows) < 2:
        raise InvalidInputError(f"ranges cannot be fitted to {len(rows)} vectors: give a sample of the documents")
    for block in iter_blocks(*rows.shape):
        _check_finite(rows[block], block.start, "ranges")
    return np.stack([rows.min(axis=0), rows.max(axis=0)]).astype(np.float32)


def _check_finite(rows: NDArray[Any], first: int, holder: str) -> None:
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = first + int(finite.argmin())
        raise InvalidInputError(f"vectors[{row}] has NaN or infinite components, which {holder} cannot hold")
