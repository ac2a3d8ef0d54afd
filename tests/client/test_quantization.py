"""Vectors in smaller types: the codes of sentence-transformers, clipping, and arguments that are rejected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sample_vectors import unit_vectors

from qwen3_triton.client import EmbeddingDtype, InvalidInputError, fit_ranges, quantize_embeddings
from qwen3_triton.client.vector_blocks import BLOCK_COMPONENTS

RANGES = np.array([[-1] * 8, [1] * 8], np.float32)
CODES = pytest.mark.parametrize("dtype", ["int8", "uint8"])
BITS = pytest.mark.parametrize("dtype", ["binary", "ubinary"])


def row(*values: float) -> NDArray[np.float32]:
    """Return float32 `[1, 8]` that begins with `values`; the rest is 0."""
    return np.array([[*values, *[0] * (8 - len(values))]], np.float32)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("dim", [8, 64, 1024])
def test_codes_are_those_of_sentence_transformers(dtype: EmbeddingDtype, dim: int) -> None:
    reference = pytest.importorskip("sentence_transformers", minversion="5.7").quantize_embeddings
    vectors = unit_vectors(3 * BLOCK_COMPONENTS // dim // 2, dim)
    vectors[::7, 3] = 0
    vectors[:, 5] = vectors[0, 5]
    # of a part, so that some components are outside
    ranges = fit_ranges(vectors[:40])
    expected = reference(vectors, dtype, ranges=ranges)
    codes = quantize_embeddings(vectors, dtype, ranges=ranges)
    assert codes.dtype == expected.dtype
    np.testing.assert_array_equal(codes, expected)


def test_ranges_are_those_of_sentence_transformers() -> None:
    reference = pytest.importorskip("sentence_transformers", minversion="5.7").quantize_embeddings
    vectors, sample = unit_vectors(300, 16), unit_vectors(200, 16, seed=1)
    expected = reference(vectors, "int8", calibration_embeddings=sample)
    np.testing.assert_array_equal(quantize_embeddings(vectors, "int8", ranges=fit_ranges(sample)), expected)


@pytest.mark.parametrize(("dtype", "first"), [("int8", -128), ("uint8", 0)])
def test_codes_by_hand(dtype: EmbeddingDtype, first: int) -> None:
    """Bins of width 1 from 0; values outside are clipped and do not wrap around."""
    ranges = np.array([[0] * 8, [255] * 8], np.float32)
    codes = quantize_embeddings(row(0, 0.9, 1, 254.9, 255, 300, -5, 128.5), dtype, ranges=ranges)
    np.testing.assert_array_equal(codes.astype(int) - first, [[0, 0, 1, 254, 255, 255, 0, 128]])


@pytest.mark.parametrize(("dtype", "expected"), [("ubinary", 0b10010000), ("binary", 0b10010000 - 128)])
def test_bits_by_hand(dtype: EmbeddingDtype, expected: int) -> None:
    """The first component is the highest bit; 0 and -0 are not above 0."""
    codes = quantize_embeddings(row(0.5, -0.5, 0, 1e-30, -0.0), dtype)
    np.testing.assert_array_equal(codes, [[expected]])
    assert codes.dtype == {"ubinary": np.uint8, "binary": np.int8}[dtype]


def test_float16_is_rounded() -> None:
    vectors = unit_vectors(50, 24)
    codes = quantize_embeddings(vectors, "float16")
    np.testing.assert_array_equal(codes, vectors.astype(np.float16))
    assert codes.dtype == np.float16


def test_float32_is_not_copied() -> None:
    vectors = unit_vectors(5, 24)
    assert quantize_embeddings(vectors, "float32") is vectors


@CODES
def test_a_component_without_a_range_has_one_code(dtype: EmbeddingDtype) -> None:
    ranges = np.zeros((2, 8), np.float32)
    codes = quantize_embeddings(row(0, 0, 0.3, -0.3), dtype, ranges=ranges)
    assert len(np.unique(codes)) == 1


@CODES
def test_tiny_ranges_clip_without_a_warning(dtype: EmbeddingDtype, recwarn: pytest.WarningsRecorder) -> None:
    ranges = np.array([[0] * 8, [1e-38] * 8], np.float32)
    codes = quantize_embeddings(row(1, -1), dtype, ranges=ranges)
    assert int(codes[0, 0]) - int(codes[0, 1]) == 255
    assert not recwarn.list


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "binary", "ubinary"])
def test_no_vectors(dtype: EmbeddingDtype) -> None:
    codes = quantize_embeddings(np.empty((0, 8), np.float32), dtype, ranges=RANGES)
    assert codes.shape == (0, 1 if dtype.endswith("binary") else 8)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_floats_keep_nan(dtype: EmbeddingDtype) -> None:
    codes = quantize_embeddings(np.array([[1, 0], [np.nan, np.nan]], np.float32), dtype)
    np.testing.assert_array_equal(np.isnan(codes), [[False, False], [True, True]])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_row_that_is_not_finite_is_named(dtype: EmbeddingDtype, value: float) -> None:
    vectors = unit_vectors(BLOCK_COMPONENTS // 8 + 20, 8)
    bad = BLOCK_COMPONENTS // 8 + 5
    vectors[bad, 3] = vectors[bad + 3] = value
    with pytest.raises(InvalidInputError, match=rf"vectors\[{bad}\] has NaN or infinite components.* {dtype} "):
        quantize_embeddings(vectors, dtype, ranges=RANGES)


@CODES
def test_codes_need_ranges(dtype: EmbeddingDtype) -> None:
    with pytest.raises(InvalidInputError, match=f"{dtype} vectors need ranges.*fit_ranges"):
        quantize_embeddings(row(1), dtype)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (RANGES[:, :4], r"ranges have shape \[2, 4\], but vectors of dim 8 need \[2, 8\]"),
        (RANGES[0], r"ranges have shape \[8\]"),
        (RANGES[::-1], "no larger than its maximum"),
        (RANGES * np.float32(np.nan), "must be finite"),
        (RANGES * np.float32(np.inf), "must be finite"),
        (RANGES * np.float32(3e38), "must be finite"),
    ],
)
def test_wrong_ranges(ranges: NDArray[np.float32], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        quantize_embeddings(row(1), "int8", ranges=ranges)


@BITS
def test_bits_need_whole_bytes(dtype: EmbeddingDtype) -> None:
    with pytest.raises(InvalidInputError, match=f"{dtype} vectors need a dim that is a multiple of 8, but dim is 12"):
        quantize_embeddings(unit_vectors(3, 12), dtype)


@pytest.mark.parametrize("dtype", ["int4", "", None, np.float32, np.dtype("float32"), ["int8"]])
def test_unknown_types(dtype: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected one of float32, float16, int8, uint8, binary, ubinary"):
        quantize_embeddings(row(1), dtype)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (row(1)[0], r"vectors have shape \[8\], expected \[n, dim\]"),
        (np.empty((3, 0), np.float32), r"vectors have shape \[3, 0\]"),
        (row(1).astype(np.int8), "vectors are of type int8, expected float32"),
        ([["a", "b"]], "vectors are of type <U1"),
    ],
)
def test_what_is_not_an_array_of_vectors(vectors: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        quantize_embeddings(vectors, "binary")
    with pytest.raises(InvalidInputError, match=message):
        fit_ranges(vectors)


def test_ranges_by_hand() -> None:
    ranges = fit_ranges(np.array([[1, -2], [3, 5], [2, 0]], np.float32))
    np.testing.assert_array_equal(ranges, [[1, -2], [3, 5]])
    assert ranges.dtype == np.float32


@pytest.mark.parametrize("count", [0, 1])
def test_ranges_need_two_vectors(count: int) -> None:
    with pytest.raises(InvalidInputError, match=f"cannot be fitted to {count} vectors"):
        fit_ranges(unit_vectors(count, 8))


def test_ranges_of_nan() -> None:
    vectors = unit_vectors(5, 8)
    vectors[3] = np.nan
    with pytest.raises(InvalidInputError, match=r"vectors\[3\] has NaN"):
        fit_ranges(vectors)
