"""Vectors of every type from the client, as arrays, iterators and in the caller's array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_triton import FakeTriton
from numpy.typing import NDArray
from sample_manifest import DIMENSION
from sample_texts import distinct_texts

from qwen3_triton.client import EmbeddingClient, InvalidInputError, fit_ranges, quantize_embeddings

pytestmark = pytest.mark.usefixtures("both_clients")

TEXTS = distinct_texts(50)
DTYPES: list[Any] = ["float32", "float16", "int8", "uint8", "binary", "ubinary"]


@pytest.mark.parametrize("dim", [None, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_types(client: EmbeddingClient, dtype: Any, dim: int | None) -> None:
    whole = client.embed_documents(TEXTS, dim=dim)
    ranges = fit_ranges(whole)
    expected = quantize_embeddings(whole, dtype, ranges=ranges)
    found = client.embed_documents(TEXTS, dim, dtype=dtype, ranges=ranges)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    arrays = list(client.iter_documents(iter(TEXTS), dim, dtype=dtype, ranges=ranges, window_texts=16))
    np.testing.assert_array_equal(np.concatenate(arrays), expected)
    queries = client.embed_queries(TEXTS[:3], "rank", dim)
    np.testing.assert_array_equal(
        client.embed_queries(TEXTS[:3], "rank", dim, dtype=dtype, ranges=ranges),
        quantize_embeddings(queries, dtype, ranges=ranges),
    )


@pytest.mark.parametrize("dtype", ["float32", "ubinary"])
def test_memory_mapped_file(client: EmbeddingClient, tmp_path: Path, dtype: Any) -> None:
    file = tmp_path / "vectors.npy"
    expected = client.embed_documents(TEXTS, dtype=dtype)
    shape = (len(TEXTS), expected.shape[1])
    mapped = np.lib.format.open_memmap(file, mode="w+", dtype=expected.dtype, shape=shape)
    written = client.embed_documents((text for text in TEXTS), dtype=dtype, out=mapped)
    assert written.shape == shape
    mapped.flush()
    np.testing.assert_array_equal(np.load(file), expected)


def test_out_may_have_more_rows(client: EmbeddingClient) -> None:
    out = np.zeros((60, DIMENSION), np.float32)
    written = client.embed_queries(TEXTS, out=out)
    assert np.shares_memory(written, out)
    np.testing.assert_array_equal(written, client.embed_queries(TEXTS))
    assert not out[len(TEXTS) :].any()


def read_only() -> NDArray[Any]:
    array = np.zeros((50, DIMENSION), np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((50, DIMENSION)), "writable float32 array .*, but it is float64"),
        (np.zeros((50, 8), np.float32), r"\[n, 16\], but it is float32 \[50, 8\]"),
        (np.zeros(50, np.float32), r"but it is float32 \[50\]"),
        (np.zeros((49, DIMENSION), np.float32), "out has 49 rows for 50 texts"),
        (read_only(), "read-only"),
        ([[0.0] * DIMENSION] * 50, "but it is of type list"),
    ],
)
def test_invalid_out(triton: FakeTriton, client: EmbeddingClient, out: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        client.embed_documents(TEXTS, out=out)
    assert triton.batches == []


def test_out_that_is_too_small_for_a_generator(client: EmbeddingClient) -> None:
    with pytest.raises(InvalidInputError, match="out has 49 rows, and there are more texts"):
        client.embed_documents(iter(TEXTS), out=np.zeros((49, DIMENSION), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "dtype is 'int4', expected one of float32"),
        ({"dtype": "int8"}, "int8 vectors need ranges"),
        ({"dtype": "ubinary", "dim": 9}, "multiple of 8, but dim is 9"),
        ({"dtype": "binary", "errors": "nan"}, "binary vectors cannot hold NaN"),
        ({"dtype": "int8", "ranges": np.zeros((2, 3), np.float32)}, r"ranges have shape \[2, 3\]"),
    ],
)
def test_invalid_options(triton: FakeTriton, client: EmbeddingClient, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        client.embed_documents(TEXTS, **options)
    with pytest.raises(InvalidInputError, match=message):
        client.iter_documents(TEXTS, **options)
    assert triton.batches == []


def test_float16_keeps_nan(client: EmbeddingClient) -> None:
    vectors = client.embed_documents(["a", "#"], dtype="float16", errors="nan")
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True]
