from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton, row_vector
from numpy.typing import NDArray
from sample_manifest import DIMENSION, END_TOKEN, END_TOKEN_ID, make_manifest
from sample_texts import distinct_texts
from tokenizers import Tokenizer

from qwen3_triton.client import EmbeddingClient, EmbeddingManifest, InvalidInputError, ManifestError

pytestmark = pytest.mark.usefixtures("both_clients")


def expected(tokenizer_file: Path, prompted: Sequence[str]) -> NDArray[np.float32]:
    """Return float32 `[n, D]`, the fake server's vector of each prompted text, computed independently."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return np.stack(
        [
            row_vector([*tokenizer.encode(text, add_special_tokens=False).ids, END_TOKEN_ID], DIMENSION)
            for text in prompted
        ]
    )


def sample_texts(count: int) -> list[str]:
    rng = random.Random(count)
    return ["".join(rng.choices("abc é漢\n{}", k=rng.randrange(60))) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 8, 9, 300])
def test_documents_in_order(client: EmbeddingClient, tokenizer_file: Path, count: int) -> None:
    texts = sample_texts(count)
    vectors = client.embed_documents(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (count, DIMENSION)
    np.testing.assert_array_equal(vectors, expected(tokenizer_file, texts))


def test_order_is_kept_when_later_requests_finish_first(
    triton: FakeTriton, client: EmbeddingClient, tokenizer_file: Path
) -> None:
    triton.fault = lambda number, _: time.sleep(0.02 * (number % 5 == 0))
    texts = sample_texts(120)
    np.testing.assert_array_equal(client.embed_documents(texts), expected(tokenizer_file, texts))


def test_queries_carry_the_instruction(client: EmbeddingClient, tokenizer_file: Path) -> None:
    np.testing.assert_array_equal(
        client.embed_queries(["q {text}"]), expected(tokenizer_file, ["Instruct: find it\nQuery:q {text}"])
    )
    np.testing.assert_array_equal(
        client.embed_queries(["q"], instruction="rank"),
        expected(tokenizer_file, ["Instruct: rank\nQuery:q"]),
    )


def test_server_row_limit_and_padding(triton: FakeTriton, client: EmbeddingClient) -> None:
    client.embed_documents([f"{number} {text}" for number, text in enumerate(sample_texts(100))])
    assert max(len(batch) for batch in triton.batches) == triton.max_batch_size
    assert sum(len(batch) for batch in triton.batches) == 100
    for batch in triton.batches:
        lengths = (batch >= 0).sum(axis=1)
        assert (batch[batch < 0] == -1).all()
        assert (batch[np.arange(len(batch)), lengths - 1] == END_TOKEN_ID).all()


def test_caller_row_limit(triton: FakeTriton) -> None:
    with EmbeddingClient(triton.url, MODEL, max_rows_per_request=3) as client:
        client.embed_documents(distinct_texts(10))
    assert sorted(len(batch) for batch in triton.batches) == [1, 3, 3, 3]


@pytest.mark.parametrize("max_in_flight", [1, 3])
def test_requests_in_flight_reach_the_limit_and_not_more(triton: FakeTriton, max_in_flight: int) -> None:
    triton.fault = lambda *_: time.sleep(0.01)
    with EmbeddingClient(triton.url, MODEL, max_rows_per_request=1, max_in_flight=max_in_flight) as client:
        client.embed_documents(distinct_texts(12))
    assert triton.most_in_flight == max_in_flight


def test_shared_between_threads(client: EmbeddingClient, tokenizer_file: Path) -> None:
    lists = [sample_texts(count) for count in range(20, 60)]
    with ThreadPoolExecutor(8) as pool:
        for texts, vectors in zip(lists, pool.map(client.embed_documents, lists), strict=True):
            np.testing.assert_array_equal(vectors, expected(tokenizer_file, texts))


@pytest.mark.parametrize("dim", [4, 5, 15])
def test_truncated_vectors_are_the_first_components_renormalized(client: EmbeddingClient, dim: int) -> None:
    texts = sample_texts(20)
    head = client.embed_documents(texts).astype(np.float64)[:, :dim]
    truncated = client.embed_documents(texts, dim=dim)
    assert truncated.dtype == np.float32
    assert truncated.shape == (20, dim)
    np.testing.assert_allclose(np.linalg.norm(truncated, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(truncated, head / np.linalg.norm(head, axis=1, keepdims=True), rtol=1e-5, atol=1e-7)


def test_full_dimension_is_returned_unchanged(client: EmbeddingClient) -> None:
    np.testing.assert_array_equal(client.embed_documents(["a"], dim=DIMENSION), client.embed_documents(["a"]))
    assert client.embed_documents(["a"], dim=np.int64(8)).shape == (1, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("dim", [0, -1, 3, 17, 8.0, "8"])
def test_unsupported_dimension(triton: FakeTriton, client: EmbeddingClient, dim: Any) -> None:
    with pytest.raises(InvalidInputError, match="dim is"):
        client.embed_documents(["a"], dim=dim)
    assert triton.batches == []


def test_no_texts(triton: FakeTriton, client: EmbeddingClient) -> None:
    assert client.embed_documents([]).shape == (0, DIMENSION)
    assert client.embed_queries(iter([]), dim=4).shape == (0, 4)
    assert triton.batches == []


def test_empty_text(triton: FakeTriton, client: EmbeddingClient) -> None:
    assert np.isfinite(client.embed_documents([""])).all()
    assert triton.batches[0].tolist() == [[END_TOKEN_ID]]
    assert np.isfinite(client.embed_queries([""])).all()


def test_text_that_ends_with_the_end_token(client: EmbeddingClient) -> None:
    plain, ended = client.embed_documents(["abc", f"abc{END_TOKEN}"])
    np.testing.assert_array_equal(plain, ended)


def test_over_long_text_is_truncated_by_default(triton: FakeTriton, client: EmbeddingClient) -> None:
    client.embed_documents(["a" * 1000])
    assert triton.batches[0].shape == (1, 200)
    assert triton.batches[0][0, -1] == END_TOKEN_ID


def test_over_long_text_is_rejected_without_truncate(triton: FakeTriton) -> None:
    with EmbeddingClient(triton.url, MODEL, truncate=False) as client:
        with pytest.raises(InvalidInputError, match=r"texts\[1\] \('a{40}…'\) has 1001 tokens"):
            client.embed_documents(["a", "a" * 1000])
        assert client.embed_documents(["a" * 199]).shape == (1, DIMENSION)
    assert len(triton.batches) == 1


@pytest.mark.parametrize("method", ["embed_queries", "embed_documents"])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one string", "expected a list of strings"),
        (b"bytes", "expected a list of strings"),
        (["a", 3], r"texts\[1\] is of type int"),
        (["a", None], r"texts\[1\] is of type NoneType"),
        (["a", "b", "ab\ud800c"], r"texts\[2\] contains a lone surrogate U\+D800 at character 2"),
        (["é\udcff"], r"texts\[0\] contains a lone surrogate U\+DCFF at character 1"),
    ],
)
def test_invalid_texts(triton: FakeTriton, client: EmbeddingClient, method: str, texts: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        getattr(client, method)(texts)
    assert triton.batches == []


def test_instruction_for_a_prompt_without_one(tokenizer_file: Path) -> None:
    manifest = make_manifest(tokenizer_file)
    prompts = type(manifest.prompts)(query="query: {text}", document="{text}", default_instruction=None)
    json = make_manifest(tokenizer_file, prompts=prompts).to_json()
    with FakeTriton(json, DIMENSION) as triton, EmbeddingClient(triton.url, MODEL) as client:
        with pytest.raises(InvalidInputError, match="takes no instruction"):
            client.embed_queries(["a"], instruction="rank")
        np.testing.assert_array_equal(client.embed_queries(["a"]), expected(tokenizer_file, ["query: a"]))


def test_error_for_nan_names_the_text(client: EmbeddingClient) -> None:
    texts = [*sample_texts(30), "fine", "import #numpy", "# too"]
    with pytest.raises(InvalidInputError, match=r"texts\[31\] \('import #numpy'\) \(and 1 more\) has no embedding"):
        client.embed_documents(texts)


def test_nan_for_some_texts_keeps_the_others(client: EmbeddingClient) -> None:
    texts = [*sample_texts(30), "fine", "import #numpy", "# too"]
    for dim in (None, client.manifest.min_dimension):
        vectors = client.embed_documents(texts, dim=dim, errors="nan")
        assert np.flatnonzero(np.isnan(vectors).any(axis=1)).tolist() == [31, 32]
        assert np.isnan(vectors[31:]).all()
        np.testing.assert_array_equal(vectors[:31], client.embed_documents(texts[:31], dim=dim))
    queries = client.embed_queries(["#", "fine"], errors="nan")
    assert np.isnan(queries).all(axis=1).tolist() == [True, False]


def test_unknown_treatment_of_nan_is_rejected(triton: FakeTriton, client: EmbeddingClient) -> None:
    with pytest.raises(InvalidInputError, match="errors is 'ignore'; it must be 'raise' or 'nan'"):
        client.embed_documents(["a"], errors=cast(Any, "ignore"))
    assert triton.batches == []


def test_requests_stay_within_the_token_budget(triton: FakeTriton) -> None:
    triton.max_batch_tokens = "40"
    with EmbeddingClient(triton.url, MODEL) as client:
        texts = sample_texts(30)
        client.embed_documents(texts)
    assert len(triton.batches) > 1
    assert sum(len(batch) for batch in triton.batches) == len(texts)
    assert all(batch.size <= 40 or len(batch) == 1 for batch in triton.batches)


@pytest.mark.parametrize("text", ["", "0", "many", "-5", "1.5", "9" * 5000])
def test_invalid_token_budget(triton: FakeTriton, text: str) -> None:
    triton.max_batch_tokens = text
    with pytest.raises(ManifestError, match="max_batch_tokens"):
        EmbeddingClient(triton.url, MODEL)


def test_manifest_is_read_from_the_server(client: EmbeddingClient, manifest: EmbeddingManifest) -> None:
    assert client.manifest == manifest


@pytest.mark.parametrize(
    "argument",
    [{"max_in_flight": 0}, {"max_rows_per_request": 0}, {"timeout_s": 0}, {"timeout_s": float("nan")}],
)
def test_bad_arguments(triton: FakeTriton, argument: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(argument))):
        EmbeddingClient(triton.url, MODEL, **argument)


def test_computed_tokens_are_counted_without_padding(client: EmbeddingClient) -> None:
    assert client.tokens_computed == 0
    client.embed_documents(["a", "abcdef", ""])
    # a token for each byte, and the end token
    assert client.tokens_computed == 2 + 7 + 1
    list(client.iter_documents(["ab"]))
    assert client.tokens_computed == 13
