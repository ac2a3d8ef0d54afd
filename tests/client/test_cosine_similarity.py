"""Cosines of stored vectors: exactness, pairs of types, memory, and the order of search results."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sample_vectors import VectorSet, make_vector_set, top_overlap, unit_vectors

from qwen3_triton.client import EmbeddingDtype, InvalidInputError, fit_ranges, quantize_embeddings, similarity
from qwen3_triton.client.vector_blocks import BLOCK_COMPONENTS

DIM = 64
QUERIES, DOCUMENTS = unit_vectors(7, DIM, seed=1), unit_vectors(2 * BLOCK_COMPONENTS // DIM + 3, DIM)
RANGES = fit_ranges(DOCUMENTS)
EXACT = QUERIES @ DOCUMENTS.T
CODES = pytest.mark.parametrize("dtype", ["int8", "uint8"])
BITS = pytest.mark.parametrize("dtype", ["binary", "ubinary"])
STORED = pytest.mark.parametrize("dtype", ["int8", "uint8", "binary", "ubinary"])


def quantize(vectors: NDArray[np.float32], dtype: EmbeddingDtype) -> NDArray[Any]:
    return quantize_embeddings(vectors, dtype, ranges=RANGES)


def signs(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.where(vectors > 0, 1.0, -1.0)


@pytest.mark.parametrize(("left", "right"), [(a, b) for a in ("float32", "float16") for b in ("float32", "float16")])
def test_floats(left: EmbeddingDtype, right: EmbeddingDtype) -> None:
    queries, documents = quantize(QUERIES, left), quantize(DOCUMENTS, right)
    scores = similarity(queries, documents)
    assert scores.dtype == np.float32
    expected = queries.astype(np.float64) @ documents.astype(np.float64).T
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_array_equal(similarity(queries, documents, dtype=right), scores)


@CODES
def test_float_queries_and_codes(dtype: EmbeddingDtype) -> None:
    scores = similarity(QUERIES, quantize(DOCUMENTS, dtype), dtype=dtype, ranges=RANGES)
    # each of 64 components is off by at most half of a bin
    assert np.abs(scores - EXACT).max() < np.abs(QUERIES).sum(axis=1).max() * np.ptp(RANGES, axis=0).max() / 255 / 2
    assert np.abs(scores - EXACT).mean() < 2e-3


@CODES
def test_codes_with_themselves(dtype: EmbeddingDtype) -> None:
    codes = quantize(DOCUMENTS[:500], dtype)
    scores = similarity(codes, codes, dtype=dtype, ranges=RANGES)
    np.testing.assert_allclose(np.diag(scores), 1, atol=1e-6)
    np.testing.assert_allclose(scores, DOCUMENTS[:500] @ DOCUMENTS[:500].T, atol=0.01)


def test_codes_are_equal_in_both_signs() -> None:
    signed = similarity(QUERIES, quantize(DOCUMENTS, "int8"), dtype="int8", ranges=RANGES)
    unsigned = similarity(QUERIES, quantize(DOCUMENTS, "uint8"), dtype="uint8", ranges=RANGES)
    np.testing.assert_array_equal(signed, unsigned)


def test_the_centre_of_a_bin_is_more_accurate_than_its_edge() -> None:
    codes = quantize(DOCUMENTS, "uint8")
    edges = codes * (RANGES[1] - RANGES[0]) / np.float32(255) + RANGES[0]
    scores = similarity(QUERIES, codes, dtype="uint8", ranges=RANGES)
    assert np.abs(scores - EXACT).mean() < 0.7 * np.abs(QUERIES @ edges.T - EXACT).mean()


def test_the_maximum_and_constant_components_are_exact() -> None:
    documents = np.array([[0.6, 0.8], [0.6, -0.8]], np.float32)
    ranges = fit_ranges(documents)
    codes = quantize_embeddings(documents[:1], "int8", ranges=ranges)
    scores = similarity(np.eye(2, dtype=np.float32), codes, dtype="int8", ranges=ranges)
    np.testing.assert_allclose(scores, [[0.6], [0.8]], rtol=1e-6)


@BITS
def test_bits_with_bits(dtype: EmbeddingDtype) -> None:
    scores = similarity(quantize(QUERIES, dtype), quantize(DOCUMENTS, dtype), dtype=dtype)
    np.testing.assert_array_equal(scores, signs(QUERIES) @ signs(DOCUMENTS).T / DIM)


@BITS
def test_opposite_bits(dtype: EmbeddingDtype) -> None:
    vectors = unit_vectors(1, 24)
    left, right = (quantize_embeddings(values, dtype) for values in (vectors, -vectors))
    assert similarity(left, right, dtype=dtype) == -1
    assert similarity(left, left, dtype=dtype) == 1


@BITS
def test_float_queries_and_bits(dtype: EmbeddingDtype) -> None:
    scores = similarity(QUERIES, quantize(DOCUMENTS, dtype), dtype=dtype)
    np.testing.assert_allclose(scores, QUERIES @ signs(DOCUMENTS).T / DIM**0.5, atol=1e-6)


def test_bits_without_the_function_of_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents = quantize(QUERIES, "ubinary"), quantize(DOCUMENTS, "ubinary")
    expected = similarity(queries, documents, dtype="ubinary")
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(similarity(queries, documents, dtype="ubinary"), expected)


@STORED
@pytest.mark.parametrize(("queries", "documents"), [(0, 5), (3, 0), (0, 0)])
def test_empty_sides(dtype: EmbeddingDtype, queries: int, documents: int) -> None:
    left, right = QUERIES[:queries], quantize(DOCUMENTS[:documents], dtype)
    assert similarity(left, right, dtype=dtype, ranges=RANGES).shape == (queries, documents)
    assert similarity(quantize(left, dtype), right, dtype=dtype, ranges=RANGES).shape == (queries, documents)


def test_nan_stays_with_its_vector() -> None:
    documents = DOCUMENTS[:4].copy()
    documents[2] = np.nan
    np.testing.assert_array_equal(np.isnan(similarity(QUERIES, documents)).any(axis=0), [False, False, True, False])


@STORED
def test_memory_does_not_grow_with_the_documents(dtype: EmbeddingDtype, tmp_path: Path) -> None:
    codes = quantize(DOCUMENTS, dtype)
    np.save(tmp_path / "codes.npy", np.tile(codes, (8, 1)))
    documents = np.load(tmp_path / "codes.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        scores = similarity(QUERIES, documents, dtype=dtype, ranges=RANGES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    decoded = len(documents) * DIM * 4
    assert peak - scores.nbytes < 4 * 4 * BLOCK_COMPONENTS < decoded / 3
    np.testing.assert_allclose(scores[:, : len(codes)], scores[:, -len(codes) :], atol=1e-6)


@pytest.mark.parametrize(
    ("queries", "documents", "dtype", "message"),
    [
        (QUERIES, quantize(DOCUMENTS, "int8"), None, "documents are of type int8: give dtype"),
        (QUERIES, quantize(DOCUMENTS, "uint8"), "int8", "of type uint8, but dtype 'int8' is stored as int8"),
        (QUERIES, quantize(DOCUMENTS, "int8"), "float32", "of type int8, but dtype 'float32' is stored as float32"),
        (QUERIES, DOCUMENTS, "ubinary", "of type float32, but dtype 'ubinary' is stored as uint8"),
        (QUERIES, DOCUMENTS, "float64", "dtype is 'float64', expected one of float32"),
        (QUERIES, quantize(DOCUMENTS, "int8"), "binary", "64 columns, expected 512 for documents of dim 512"),
        (QUERIES, quantize(DOCUMENTS, "binary"), "int8", r"shape \[2, 64\], but vectors of dim 8 need \[2, 8\]"),
        (QUERIES[:, :32], DOCUMENTS, None, "queries have 32 columns, expected 64 for documents of dim 64"),
        (QUERIES[:, :32], quantize(DOCUMENTS, "binary"), "binary", "32 columns, expected 64"),
        (quantize(QUERIES, "binary"), quantize(DOCUMENTS, "ubinary"), "ubinary", "queries must be floats or"),
        (quantize(QUERIES, "binary"), DOCUMENTS, None, "queries are of type int8 and documents of type float32"),
        (quantize(QUERIES, "int8"), quantize(DOCUMENTS, "binary"), "binary", "64 columns, expected 8 for"),
        (QUERIES[0], DOCUMENTS, None, r"queries have shape \[64\], expected \[n, dim\]"),
        (QUERIES, DOCUMENTS[0], None, r"documents have shape \[64\], expected \[n, dim\]"),
        (QUERIES, DOCUMENTS.astype(np.int32), None, "documents are of type int32: give dtype"),
    ],
)
def test_wrong_arguments(queries: Any, documents: Any, dtype: EmbeddingDtype | None, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        similarity(queries, documents, dtype=dtype, ranges=RANGES)


@CODES
def test_codes_need_ranges(dtype: EmbeddingDtype) -> None:
    with pytest.raises(InvalidInputError, match=f"{dtype} vectors need ranges"):
        similarity(QUERIES, quantize(DOCUMENTS, dtype), dtype=dtype)


@pytest.fixture(scope="module")
def vector_set() -> VectorSet:
    return make_vector_set()


@pytest.mark.parametrize(("dtype", "overlap"), [("float16", 0.99), ("int8", 0.95), ("uint8", 0.95)])
def test_codes_keep_the_ranking(vector_set: VectorSet, dtype: EmbeddingDtype, overlap: float) -> None:
    queries, documents = vector_set.queries, vector_set.documents
    ranges = fit_ranges(documents[:500])
    exact = similarity(queries, documents)
    scores = similarity(queries, quantize_embeddings(documents, dtype, ranges=ranges), dtype=dtype, ranges=ranges)
    assert top_overlap(scores, exact) >= overlap
    assert abs(vector_set.hit_rate(scores) - vector_set.hit_rate(exact)) <= 0.01


def test_bits_rank_better_with_float_queries(vector_set: VectorSet) -> None:
    exact = similarity(vector_set.queries, vector_set.documents)
    bits = quantize_embeddings(vector_set.documents, "binary")
    mixed = similarity(vector_set.queries, bits, dtype="binary")
    both = similarity(quantize_embeddings(vector_set.queries, "binary"), bits, dtype="binary")
    assert top_overlap(mixed, exact) >= top_overlap(both, exact) + 0.1
    assert vector_set.hit_rate(both) + 0.03 <= vector_set.hit_rate(mixed) <= vector_set.hit_rate(exact)
