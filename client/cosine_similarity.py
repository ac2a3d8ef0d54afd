"""Cosine similarity of queries and documents, in any of the types that vectors are stored in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .vector_blocks import check_rows, is_float, iter_blocks
from .vector_formats import EmbeddingDtype, SignFormat, VectorFormat, format_of_width, stored_type

_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


def similarity(
    queries: NDArray[Any],
    documents: NDArray[Any],
    *,
    dtype: EmbeddingDtype | None = None,
    ranges: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return the cosine similarity of each query with each document.

    Queries are floats, or of the same type as the documents. Float queries are more accurate with every type of
    documents. Floats must be unit vectors: their cosine is the dot product, in float32. int8 and uint8 codes stand for
    the centre of their bin, whose mean error is half of that of the lower edge, which sentence-transformers takes when
    it rescores; the decoded vectors are normalized. Bits stand for components of equal size, and the cosine of two
    vectors of bits is `1 - 2 * hamming_distance / dim`.

    Documents are decoded in blocks: memory beyond the result does not grow with their number, and they may be a memory
    map.

    Args:
        queries: Floats `[q, dim]`, or what `documents` are.
        documents: `[d, dim]` of floats, int8 or uint8, or `[d, dim / 8]` bytes of bits.
        dtype: How `documents` are stored. Required if they are integers, which may be codes or bits.
        ranges: float32 `[2, dim]`, with which int8 and uint8 documents were quantized; the other types do not use it.

    Returns:
        float32 `[q, d]`. NaN for vectors with NaN components, and 0 for floats that are all zero. Codes and bits do
        not express a vector of zeros: its cosines are arbitrary.

    Raises:
        InvalidInputError: An argument has the wrong shape or type, `dtype` is missing or is not that of the documents,
            the widths of queries and documents do not match, or `ranges` are missing or invalid.
    """
    left, right = check_rows(queries, "queries"), check_rows(documents, "documents")
    form = _format_of_documents(right, dtype, ranges)
    _check_queries(left, right, form)
    scores = np.empty((len(left), len(right)), np.float32)
    counts_bits = isinstance(form, SignFormat) and not is_float(left)
    vectors = left if counts_bits else _decode_queries(left, form)
    for block in iter_blocks(len(right), form.dim):
        if counts_bits:
            scores[:, block] = _cosines_of_bits(vectors, right[block])
        else:
            scores[:, block] = vectors @ form.decode(right[block]).T
    return scores


def _format_of_documents(
    documents: NDArray[Any], dtype: EmbeddingDtype | None, ranges: NDArray[np.float32] | None
) -> VectorFormat:
    if dtype is None:
        if not is_float(documents):
            raise InvalidInputError(
                f"documents are of type {documents.dtype}: give dtype, which says whether they are codes or bits"
            )
        dtype = "float32"
    stored = stored_type(dtype)
    if documents.dtype != stored and not (is_float(documents) and stored.kind == "f"):
        raise InvalidInputError(f"documents are of type {documents.dtype}, but dtype {dtype!r} is stored as {stored}")
    return format_of_width(dtype, documents.shape[1], ranges)


def _check_queries(queries: NDArray[Any], documents: NDArray[Any], form: VectorFormat) -> None:
    if not is_float(queries) and queries.dtype != documents.dtype:
        raise InvalidInputError(
            f"queries are of type {queries.dtype} and documents of type {documents.dtype}: queries must be floats or "
            "of the same type"
        )
    expected = form.dim if is_float(queries) else form.width
    if queries.shape[1] != expected:
        raise InvalidInputError(
            f"queries have {queries.shape[1]} columns, expected {expected} for documents of dim {form.dim}"
        )


def _decode_queries(queries: NDArray[Any], form: VectorFormat) -> NDArray[np.float32]:
    return queries.astype(np.float32, copy=False) if is_float(queries) else form.decode(queries)


def _cosines_of_bits(queries: NDArray[Any], documents: NDArray[Any]) -> NDArray[np.float32]:
    dim = 8 * documents.shape[1]
    # int8 differs from uint8 in one bit of each byte, which is the same for queries and documents
    left, right = queries.view(np.uint8), documents.view(np.uint8)
    distances = np.empty((len(left), len(right)), np.float32)
    for row, query in enumerate(left):
        distances[row] = _count_bits(right ^ query).sum(axis=1, dtype=np.int32)
    cosines: NDArray[np.float32] = (dim - 2 * distances) / dim
    return cosines


def _count_bits(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # numpy has bitwise_count since 2.0
    counts: NDArray[np.uint8] = np.bitwise_count(values) if hasattr(np, "bitwise_count") else _BITS_OF_BYTE[values]
    return counts
