from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton, write_reply
from sample_manifest import DIMENSION, make_manifest
from sample_texts import distinct_texts

from qwen3_triton.client import (
    ClientError,
    EmbeddingClient,
    EmbeddingManifest,
    InvalidInputError,
    ManifestError,
    ModelNotLoadedError,
    RerankClient,
    RerankManifest,
    ServerError,
    ServerOverloadedError,
    ServerTimeoutError,
    ServerUnavailableError,
    TokenizerIdentity,
)

pytestmark = pytest.mark.usefixtures("both_clients")

BOTH_PATHS = pytest.mark.parametrize("texts", [1, 30], ids=["one request", "many requests"])


def abort(code: grpc.StatusCode, details: str, at: int = 0) -> Callable[[int, Any], None]:
    def fault(number: int, context: Any) -> None:
        if number >= at:
            context.abort(code, details)

    return fault


def test_server_is_unreachable() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(ServerUnavailableError, match=f"{url}: no Triton server reachable") as raised:
            EmbeddingClient(url, MODEL, timeout_s=5)
    assert isinstance(raised.value.__cause__, grpc.RpcError)


def test_unknown_model(triton: FakeTriton) -> None:
    with pytest.raises(ModelNotLoadedError, match=rf"{triton.url}: model 'other' is not loaded"):
        EmbeddingClient(triton.url, "other")


def test_url_with_a_scheme() -> None:
    with pytest.raises(InvalidInputError, match="without a scheme"):
        EmbeddingClient("http://localhost:8001", MODEL)


@BOTH_PATHS
@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (
            grpc.StatusCode.NOT_FOUND,
            "Request for unknown model: 'demo' has no available versions",
            ModelNotLoadedError,
        ),
        (grpc.StatusCode.UNAVAILABLE, "Server is stopping", ServerUnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many", ServerOverloadedError),
        (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", ServerOverloadedError),
        (grpc.StatusCode.UNAVAILABLE, "Request timeout expired", ServerOverloadedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)", ServerError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Request timeout expired", ServerTimeoutError),
        (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape", ServerError),
        (grpc.StatusCode.INTERNAL, "onnx runtime error 2", ServerError),
    ],
)
def test_failed_calls(
    triton: FakeTriton,
    client: EmbeddingClient,
    texts: int,
    code: grpc.StatusCode,
    details: str,
    error: type[Exception],
) -> None:
    triton.fault = abort(code, details)
    with pytest.raises(ServerError) as raised:
        client.embed_documents(distinct_texts(texts))
    assert type(raised.value) is error
    assert isinstance(raised.value.__cause__, grpc.RpcError)
    assert MODEL in str(raised.value) or error is ServerUnavailableError
    assert triton.url in str(raised.value)


@BOTH_PATHS
@pytest.mark.parametrize("details", ["Exceeds maximum queue size", "Request timeout expired"])
def test_rejected_requests_narrow_the_window(
    triton: FakeTriton, client: EmbeddingClient, texts: int, details: str
) -> None:
    pace = client._current.preparation.model.pace
    before = pace.window
    triton.fault = abort(grpc.StatusCode.UNAVAILABLE, details)
    with pytest.raises(ServerOverloadedError, match="retry later"):
        client.embed_documents(distinct_texts(texts))
    assert pace.window == before // 2


@BOTH_PATHS
def test_slow_server(triton: FakeTriton, texts: int) -> None:
    release = threading.Event()
    # a client that kept waiting would receive a reply
    triton.fault = lambda *_: release.wait(60)
    try:
        with (
            EmbeddingClient(triton.url, MODEL, timeout_s=0.2) as client,
            pytest.raises(ServerTimeoutError, match=r"did not reply within 0\.2 s"),
        ):
            client.embed_documents(distinct_texts(texts))
    finally:
        release.set()


def test_first_error_cancels_the_rest(triton: FakeTriton) -> None:
    cancelled = []

    def fault(number: int, context: Any) -> None:
        if number == 2:
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        terminated = threading.Event()
        if not context.add_callback(terminated.set) or terminated.wait(60):
            cancelled.append(number)

    triton.fault = fault
    deadline_s = time.monotonic() + 30
    with EmbeddingClient(triton.url, MODEL, max_rows_per_request=1, max_in_flight=4) as client:
        with pytest.raises(ServerError, match="broken"):
            client.embed_documents(distinct_texts(50))
        while len(cancelled) < len(triton.batches) - 1 and time.monotonic() < deadline_s:
            time.sleep(0.01)
    # the fourth may be cancelled before it reaches the server
    assert len(triton.batches) in (3, 4)
    assert len(cancelled) == len(triton.batches) - 1


def test_failed_requests_are_not_retried(triton: FakeTriton, client: EmbeddingClient) -> None:
    triton.fault = abort(grpc.StatusCode.UNAVAILABLE, "Server is stopping")
    with pytest.raises(ServerUnavailableError):
        client.embed_documents(["a"])
    assert len(triton.batches) == 1
    triton.fault = None
    assert client.embed_documents(["a"]).shape == (1, DIMENSION)


def test_server_stops_after_the_client_connected(manifest: EmbeddingManifest) -> None:
    with FakeTriton(manifest.to_json(), DIMENSION) as triton:
        client = EmbeddingClient(triton.url, MODEL, retry_timeout_s=0)
    with client, pytest.raises(ServerUnavailableError, match="no Triton server reachable"):
        client.embed_documents(["a"])


@BOTH_PATHS
def test_closed_client(triton: FakeTriton, texts: int) -> None:
    client = EmbeddingClient(triton.url, MODEL)
    client.close()
    client.close()
    with pytest.raises(ClientError, match="is closed"):
        client.embed_documents(distinct_texts(texts))


@BOTH_PATHS
def test_closed_while_waiting(triton: FakeTriton, texts: int) -> None:
    release = threading.Event()
    triton.fault = lambda *_: release.wait(5)
    client = EmbeddingClient(triton.url, MODEL)
    threading.Timer(0.1, client.close).start()
    with pytest.raises(ServerError, match=r"was cancelled|is closed") as caught:
        client.embed_documents(distinct_texts(texts))
    release.set()
    assert not isinstance(caught.value, ServerUnavailableError)


@BOTH_PATHS
def test_a_call_that_the_server_cancels_may_be_retried(triton: FakeTriton, client: EmbeddingClient, texts: int) -> None:
    triton.fault = abort(grpc.StatusCode.CANCELLED, "cancelled")
    with pytest.raises(ServerUnavailableError, match="the server cancelled the call"):
        client.embed_documents(distinct_texts(texts))


@pytest.mark.parametrize(
    "change_output",
    [
        lambda vectors: vectors[:, :-1],
        lambda vectors: vectors[:-1],
        lambda vectors: vectors[0],
        lambda vectors: vectors.astype(np.float16),
    ],
    ids=["narrower", "fewer rows", "rank 1", "fp16"],
)
def test_reply_with_wrong_shape_or_type(triton: FakeTriton, client: EmbeddingClient, change_output: Any) -> None:
    triton.change_output = change_output
    with pytest.raises(ManifestError, match="the model may have been replaced"):
        client.embed_documents(["a", "b"])


def test_reply_without_the_output(client: EmbeddingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fake_triton.write_reply", lambda vectors, _: write_reply(vectors, "score"))
    with pytest.raises(ManifestError, match="has no output embedding"):
        client.embed_documents(["a", "b"])


def test_model_was_replaced_by_one_of_another_task(triton: FakeTriton, client: EmbeddingClient) -> None:
    triton.dimension = None
    with pytest.raises(ManifestError, match=r"does not have the output .* create a new client .*'embedding'"):
        client.embed_documents(["a", "b"])


def assert_rejected(manifest_json: str | None, match: str, max_batch_size: int = 8) -> None:
    with (
        FakeTriton(manifest_json, DIMENSION, max_batch_size) as triton,
        pytest.raises(ManifestError, match=match),
    ):
        EmbeddingClient(triton.url, MODEL)


def test_no_manifest() -> None:
    assert_rejected(None, "model 'demo' has no manifest")


def test_newer_schema(manifest: EmbeddingManifest) -> None:
    assert_rejected(json.dumps(json.loads(manifest.to_json()) | {"schema_version": 2}), "schema 2.*upgrade")


def test_wrong_task(manifest: EmbeddingManifest, rerank_manifest: RerankManifest) -> None:
    assert_rejected(rerank_manifest.to_json(), "for task rerank, this client is for task embed")
    with (
        FakeTriton(manifest.to_json(), DIMENSION) as triton,
        pytest.raises(ManifestError, match="for task embed, this client is for task rerank"),
    ):
        RerankClient(triton.url, MODEL)


def test_wrong_tokenizer(tokenizer_file: Path) -> None:
    identity = TokenizerIdentity(sha256="f" * 64, origin=str(tokenizer_file.parent))
    assert_rejected(make_manifest(tokenizer_file, tokenizer=identity).to_json(), "not the model's tokenizer")


def test_model_without_batches(manifest: EmbeddingManifest) -> None:
    assert_rejected(manifest.to_json(), "does not accept batches", max_batch_size=0)


def test_large_reply(tokenizer_file: Path) -> None:
    dimension = 8192
    json_text = make_manifest(tokenizer_file, dimension=dimension).to_json()
    with FakeTriton(json_text, dimension, 512) as triton, EmbeddingClient(triton.url, MODEL) as client:
        assert client.embed_documents(distinct_texts(512, length=3)).shape == (512, dimension)
    # gRPC's default limit is 4 MiB
    assert max(map(len, triton.batches)) * 4 * dimension == 8 * 2**20
