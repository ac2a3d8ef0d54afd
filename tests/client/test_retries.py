"""Requests that a server did not compute are sent again, to the same server or to another one."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton
from sample_manifest import DIMENSION
from sample_texts import distinct_texts

from qwen3_triton.client import (
    EmbeddingClient,
    EmbeddingManifest,
    RerankClient,
    RerankManifest,
    ServerError,
    ServerOutOfMemoryError,
    ServerOverloadedError,
    ServerTimeoutError,
    ServerUnavailableError,
)

pytestmark = pytest.mark.usefixtures("both_clients")

TEXTS = distinct_texts(40)
OUT_OF_MEMORY = "onnx runtime error 6: Failed to allocate memory for requested buffer of size 3221225472"


def abort_first(count: int, code: grpc.StatusCode, details: str) -> Callable[[int, Any], None]:
    def fault(number: int, context: Any) -> None:
        if number < count:
            context.abort(code, details)

    return fault


@pytest.fixture
def whole(triton: FakeTriton) -> np.ndarray:
    with EmbeddingClient(triton.url, MODEL) as client:
        vectors = client.embed_documents(TEXTS)
    triton.batches.clear()
    return vectors


@pytest.mark.parametrize("texts", [1, 40], ids=["one request", "many requests"])
@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Server is stopping, scheduler for model has stopped accepting new requests"),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'demo' has no available versions"),
        (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size"),
        (grpc.StatusCode.UNAVAILABLE, "Request timeout expired"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests"),
        (grpc.StatusCode.CANCELLED, "cancelled"),
        (grpc.StatusCode.UNAVAILABLE, "keepalive watchdog timeout"),
    ],
)
def test_a_request_is_sent_until_it_is_computed(
    triton: FakeTriton, whole: np.ndarray, texts: int, code: grpc.StatusCode, details: str
) -> None:
    triton.fault = abort_first(2, code, details)
    with EmbeddingClient(triton.url, MODEL, max_in_flight=2) as client:
        np.testing.assert_array_equal(client.embed_documents(TEXTS[:texts]), whole[:texts])
    # two attempts failed, and no row was computed twice
    assert sum(map(len, triton.batches[2:])) == texts


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape"),
        (grpc.StatusCode.INTERNAL, "onnx runtime error 2"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
    ],
)
def test_other_failures_are_final(triton: FakeTriton, code: grpc.StatusCode, details: str) -> None:
    triton.fault = abort_first(1, code, details)
    with EmbeddingClient(triton.url, MODEL) as client, pytest.raises(ServerError):
        client.embed_documents(["a"])
    assert len(triton.batches) == 1


def test_retries_end(triton: FakeTriton) -> None:
    triton.fault = abort_first(10_000, grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    with (
        EmbeddingClient(triton.url, MODEL, retry_timeout_s=0.5) as client,
        pytest.raises(ServerOverloadedError, match="retry later") as caught,
    ):
        client.embed_documents(TEXTS)
    assert caught.value.partial is not None and not caught.value.partial.done.any()
    # five requests were in flight, and then one at a time
    assert 6 <= len(triton.batches) <= 15


def test_the_deadline_of_a_call_includes_its_retries(triton: FakeTriton) -> None:
    triton.fault = abort_first(10_000, grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    started_s = time.monotonic()
    with (
        EmbeddingClient(triton.url, MODEL, call_timeout_s=0.5) as client,
        pytest.raises(ServerTimeoutError, match=r"cannot finish within its 0\.5 s"),
    ):
        client.embed_documents(TEXTS)
    # far from the 30 s of the retries
    assert time.monotonic() - started_s < 15


def test_scores(reranking_triton: FakeTriton, rerank_manifest: RerankManifest) -> None:
    assert rerank_manifest.task == "rerank"
    with RerankClient(reranking_triton.url, MODEL) as client:
        expected = client.rerank("q", TEXTS)
        reranking_triton.batches.clear()
        reranking_triton.fault = abort_first(3, grpc.StatusCode.UNAVAILABLE, "Server is stopping")
        assert client.rerank("q", TEXTS) == expected


def test_iterator(triton: FakeTriton, whole: np.ndarray) -> None:
    triton.fault = abort_first(3, grpc.StatusCode.UNAVAILABLE, "Server is stopping")
    with EmbeddingClient(triton.url, MODEL) as client:
        arrays = list(client.iter_documents(iter(TEXTS), window_texts=16))
    np.testing.assert_array_equal(np.concatenate(arrays), whole)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_request_too_large_for_the_servers_memory_is_halved(triton: FakeTriton, whole: np.ndarray, rows: int) -> None:
    def fault(number: int, context: Any) -> None:
        if len(triton.batches[number]) > rows:
            context.abort(grpc.StatusCode.INTERNAL, OUT_OF_MEMORY)

    triton.fault = fault
    with EmbeddingClient(triton.url, MODEL, max_in_flight=1) as client:
        np.testing.assert_array_equal(client.embed_documents(TEXTS), whole)
    assert sum(len(batch) for batch in triton.batches if len(batch) <= rows) == len(TEXTS)


def test_a_text_too_large_for_the_servers_memory_is_an_error(triton: FakeTriton) -> None:
    triton.fault = abort_first(10_000, grpc.StatusCode.INTERNAL, OUT_OF_MEMORY)
    with (
        EmbeddingClient(triton.url, MODEL, max_in_flight=1) as client,
        pytest.raises(ServerOutOfMemoryError, match="ran out of memory: export it with a smaller token budget"),
    ):
        client.embed_documents(["a", "b", "c"])
    assert [len(batch) for batch in triton.batches] == [3, 1]


@pytest.fixture
def two_servers(manifest: EmbeddingManifest) -> Iterator[list[FakeTriton]]:
    with FakeTriton(manifest.to_json(), DIMENSION) as first, FakeTriton(manifest.to_json(), DIMENSION) as second:
        yield [first, second]


def test_servers_share_the_requests(two_servers: list[FakeTriton], whole: np.ndarray) -> None:
    with EmbeddingClient([server.url for server in two_servers], MODEL) as client:
        np.testing.assert_array_equal(client.embed_documents(TEXTS), whole)
    assert sum(len(batch) for server in two_servers for batch in server.batches) == len(TEXTS)
    assert all(len(server.batches) >= 2 for server in two_servers)


def test_single_texts_take_turns(two_servers: list[FakeTriton]) -> None:
    with EmbeddingClient([server.url for server in two_servers], MODEL) as client:
        for text in TEXTS[:10]:
            client.embed_documents([text])
    assert [len(server.batches) for server in two_servers] == [5, 5]


def test_a_server_that_fails_is_left_out(two_servers: list[FakeTriton], whole: np.ndarray) -> None:
    broken, healthy = two_servers
    broken.fault = abort_first(10_000, grpc.StatusCode.UNAVAILABLE, "Server is stopping")
    with EmbeddingClient([broken.url, healthy.url], MODEL, retry_timeout_s=30) as client:
        np.testing.assert_array_equal(client.embed_documents(TEXTS), whole)
        assert sum(map(len, healthy.batches)) == len(TEXTS)


def test_a_server_that_dies_during_a_call(manifest: EmbeddingManifest, whole: np.ndarray) -> None:
    with FakeTriton(manifest.to_json(), DIMENSION) as healthy:
        dying = FakeTriton(manifest.to_json(), DIMENSION)
        with dying:
            stopper = threading.Thread(target=lambda: dying._server.stop(None).wait(10))

            def fault(number: int, _: Any) -> None:
                if number == 1:
                    stopper.start()
                    time.sleep(0.3)

            dying.fault = fault
            with EmbeddingClient([dying.url, healthy.url], MODEL, max_rows_per_request=2) as client:
                np.testing.assert_array_equal(client.embed_documents(TEXTS), whole)
                stopper.join(10)
                np.testing.assert_array_equal(client.embed_documents(TEXTS), whole)


def test_a_client_connects_to_any_of_its_servers(triton: FakeTriton, manifest: EmbeddingManifest) -> None:
    with FakeTriton(manifest.to_json(), DIMENSION) as stopped:
        pass
    with EmbeddingClient([stopped.url, triton.url], MODEL) as client:
        assert client.embed_documents(TEXTS).shape == (len(TEXTS), DIMENSION)
    with pytest.raises(ServerUnavailableError, match=stopped.url):
        EmbeddingClient([stopped.url], MODEL)


def test_a_server_that_is_started_again(manifest: EmbeddingManifest, whole: np.ndarray) -> None:
    with FakeTriton(manifest.to_json(), DIMENSION) as first:
        client = EmbeddingClient(first.url, MODEL, max_rows_per_request=1)
        arrays = client.iter_documents(TEXTS, window_texts=10)
        found = [next(arrays)]
    again: list[FakeTriton] = []

    def start_again() -> None:
        time.sleep(0.7)
        again.append(FakeTriton(manifest.to_json(), DIMENSION, address=first.url).__enter__())

    starting = threading.Thread(target=start_again)
    starting.start()
    with client:
        found += arrays
    starting.join()
    again[0].__exit__()
    np.testing.assert_array_equal(np.concatenate(found), whole)


def test_rolling_update_of_two_servers(two_servers: list[FakeTriton], manifest: EmbeddingManifest) -> None:
    """Each call is computed by one version, while each server has a version of its own."""
    versions = [
        dataclasses.replace(manifest, prompts=dataclasses.replace(manifest.prompts, document=f"v{number} {{text}}"))
        for number in (1, 2)
    ]
    for server in two_servers:
        server.deploy(versions[0], 1)
    with EmbeddingClient([server.url for server in two_servers], MODEL) as client:
        old = client.embed_documents(TEXTS)
        two_servers[0].deploy(versions[1], 2)
        np.testing.assert_array_equal(client.embed_documents(TEXTS), old)
        assert client.manifest.model_version == 1
        two_servers[1].deploy(versions[1], 2)
        new = client.embed_documents(TEXTS)
        assert client.manifest.model_version == 2
        assert not np.array_equal(old, new)
        np.testing.assert_array_equal(client.embed_documents(TEXTS), new)
