"""Iterators over embeddings: order, memory, errors and what they leave in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton
from sample_manifest import DIMENSION
from sample_texts import distinct_texts

from qwen3_triton.client import EmbeddingClient
from qwen3_triton.client.errors import InvalidInputError, ServerError
from qwen3_triton.client.manifest import LOST_ROW_BITS
from qwen3_triton.client.tokenization import RowTokenizer, TokenRows

pytestmark = pytest.mark.usefixtures("both_clients")


def sample_texts(count: int) -> list[str]:
    rng = np.random.default_rng(count)
    return ["abcdefgh"[: rng.integers(0, 8)] * int(rng.integers(1, 5)) for _ in range(count)]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_arrays_are_the_rows_of_the_whole_in_order(client: EmbeddingClient, count: int) -> None:
    texts = sample_texts(count)
    arrays = list(client.iter_documents(iter(texts), dim=8, window_texts=8))
    assert [len(array) for array in arrays] == [8] * (count // 8) + ([count % 8] if count % 8 else [])
    joined = np.concatenate(arrays) if arrays else np.empty((0, 8), np.float32)
    np.testing.assert_array_equal(joined, client.embed_documents(texts, dim=8))


def test_queries_have_their_prompt(client: EmbeddingClient) -> None:
    texts = sample_texts(20)
    joined = np.concatenate(list(client.iter_queries(texts, "rank", window_texts=6)))
    np.testing.assert_array_equal(joined, client.embed_queries(texts, "rank"))


def test_texts_are_read_as_they_are_needed(client: EmbeddingClient) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "a"

    arrays = client.iter_documents(endless(), window_texts=16)
    assert read == 0
    for _ in range(10):
        assert next(arrays).shape == (16, DIMENSION)
    # at most the requests in flight are ahead
    assert read <= 16 * 10 + 16 * 8
    arrays.close()


def test_an_error_comes_after_the_vectors_before_it(triton: FakeTriton) -> None:
    def fault(number: int, context: Any) -> None:
        if number == 5:
            context.abort(grpc.StatusCode.INTERNAL, "broken")

    with EmbeddingClient(triton.url, MODEL, max_rows_per_request=2, max_in_flight=1) as client:
        texts = distinct_texts(40)
        whole = client.embed_documents(texts)
        triton.batches.clear()
        triton.fault = fault
        arrays = client.iter_documents(texts, window_texts=8)
        received = [next(arrays), next(arrays)]
        with pytest.raises(ServerError, match="broken"):
            next(arrays)
    assert [len(array) for array in received] == [8, 2]
    np.testing.assert_array_equal(np.concatenate(received), whole[:10])


def test_closing_cancels_what_is_in_flight(triton: FakeTriton) -> None:
    cancelled = []

    def fault(number: int, context: Any) -> None:
        if number >= 4:
            started_s = time.monotonic()
            while context.is_active() and time.monotonic() < started_s + 30:
                time.sleep(0.01)
            cancelled.append(number)

    triton.fault = fault
    with EmbeddingClient(triton.url, MODEL, max_rows_per_request=1, max_in_flight=2) as client:
        arrays = client.iter_documents(distinct_texts(100), window_texts=4)
        next(arrays)
        deadline_s = time.monotonic() + 20
        # what was sent may arrive after the client has closed the iterator
        while len(triton.batches) < 5 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        arrays.close()
        arrived = len(triton.batches)
        while len(cancelled) < arrived - 4 and time.monotonic() < deadline_s:
            time.sleep(0.01)
            arrived = len(triton.batches)
        ended = len(cancelled)
    assert 5 <= arrived <= 6
    assert ended == arrived - 4


def test_an_invalid_text_is_named_by_its_position_in_the_whole_input(client: EmbeddingClient) -> None:
    arrays = client.iter_documents(["a"] * 20 + ["\ud800"], window_texts=8)
    with pytest.raises(InvalidInputError, match=r"texts\[20\] contains a lone surrogate"):
        list(arrays)
    with pytest.raises(InvalidInputError, match=r"texts\[13\] \('#'\) has no embedding"):
        list(client.iter_documents(["a"] * 13 + ["#"] + ["b"] * 10, window_texts=8))
    rows = np.concatenate(list(client.iter_documents(["a", "#", "b"], errors="nan", window_texts=2)))
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False]


def test_lost_rows_are_sent_again(triton: FakeTriton, client: EmbeddingClient) -> None:
    texts = sample_texts(30)
    whole = client.embed_documents(texts)
    triton.batches.clear()

    def lose_once(output: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if len(triton.batches) == 2:
            output = output.copy()
            output.view(np.uint32)[0] = LOST_ROW_BITS
        return output

    triton.change_output = lose_once
    np.testing.assert_array_equal(np.concatenate(list(client.iter_documents(texts, window_texts=8))), whole)


def test_arguments_are_checked_before_the_first_array(client: EmbeddingClient) -> None:
    with pytest.raises(InvalidInputError, match="dim is 3"):
        client.iter_documents(["a"], dim=3)
    with pytest.raises(InvalidInputError, match="errors is 'skip'"):
        client.iter_queries(["a"], errors="skip")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="single string"):
        client.iter_documents("abc")
    with pytest.raises(InvalidInputError, match="window_texts is 0"):
        client.iter_documents(["a"], window_texts=0)


def test_the_next_window_is_tokenized_while_the_server_computes(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does not answer the first window before the second one is tokenized, in another thread."""
    threads = []
    is_ahead = threading.Event()
    tokenize = RowTokenizer.tokenize

    def record(*args: Any, **options: Any) -> TokenRows:
        threads.append(threading.current_thread())
        if len(threads) == 2:
            is_ahead.set()
        return tokenize(*args, **options)

    answered = []
    triton.fault = lambda *_: answered.append(is_ahead.wait(30))
    monkeypatch.setattr(RowTokenizer, "tokenize", record)
    # the only request in flight has the whole first window
    with EmbeddingClient(triton.url, MODEL, max_in_flight=1) as client:
        arrays = list(client.iter_documents(distinct_texts(40), window_texts=triton.max_batch_size))
    assert len(np.concatenate(arrays)) == 40
    assert all(answered)
    assert all(thread.name.startswith(("tokenization", "asyncio")) for thread in threads)
