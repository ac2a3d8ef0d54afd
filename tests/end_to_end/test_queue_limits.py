"""A queue with the limits that an export sets, in a real Triton that gets more than it can compute."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from qwen3_triton.client import EmbeddingClient, ServerOverloadedError
from qwen3_triton.export import ExportOptions, ServingOptions, SourceReference, WitnessChoice, export_model
from qwen3_triton.server import start_triton

MODEL = "limited"
MAX_TOKENS = 128
ROWS = 64
QUEUE_SIZE = 2
QUEUE_TIMEOUT_MS = 20
WAIT_S = 60


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[EmbeddingClient]:
    repository = tmp_path_factory.mktemp("served") / "models"
    serving = ServingOptions(
        max_batch_tokens=ROWS * MAX_TOKENS, max_queue_size=QUEUE_SIZE, queue_timeout_ms=QUEUE_TIMEOUT_MS
    )
    export_model(
        ExportOptions(
            model=SourceReference(str(project_root / "examples" / "demo" / "checkpoint")),
            repository=repository,
            name=MODEL,
            max_tokens=MAX_TOKENS,
            serving=serving,
            witness=WitnessChoice.NONE,
        )
    )
    with (
        start_triton(repository) as server,
        EmbeddingClient(server.grpc_url, MODEL, timeout_s=WAIT_S, retry_timeout_s=0) as connected,
    ):
        yield connected


@contextmanager
def large_requests(url: str, callers: int) -> Iterator[None]:
    """Keep up to `callers` requests of the largest size in flight."""
    stopped = threading.Event()
    ids = triton.InferInput("input_ids", [ROWS, MAX_TOKENS], "INT64")
    ids.set_data_from_numpy(np.ones((ROWS, MAX_TOKENS), np.int64))

    def send() -> None:
        with triton.InferenceServerClient(url) as sender:
            while not stopped.is_set():
                try:
                    sender.infer(MODEL, [ids], client_timeout=WAIT_S)
                except InferenceServerException as exc:
                    assert exc.status() == "StatusCode.UNAVAILABLE", exc
                    time.sleep(0.005)

    with ThreadPoolExecutor(callers) as pool:
        sending = [pool.submit(send) for _ in range(callers)]
        try:
            yield
        finally:
            stopped.set()
        for each in sending:
            each.result(WAIT_S)


def embed_until_rejected(client: EmbeddingClient, reason: str) -> ServerOverloadedError:
    """Call the model until it rejects a request with `reason`; a call may also succeed, or fail for another reason."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            client.embed_documents(["one"])
        except ServerOverloadedError as exc:
            if reason in str(exc):
                return exc
    raise AssertionError(f"no request was rejected with '{reason}'")


def embed_when_possible(client: EmbeddingClient, texts: list[str]) -> np.ndarray:
    """Return the vectors of `texts`, after as many rejections as there are."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return client.embed_documents(texts)
        except ServerOverloadedError:
            assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("callers", "reason", "details"),
    [
        (8, "the queue of model 'limited' is full; retry later", "Exceeds maximum queue size"),
        (1, "waited longer than the server allows; retry later", "Request timeout expired"),
    ],
    ids=["full queue", "queue timeout"],
)
def test_rejected_request_may_be_sent_again(client: EmbeddingClient, callers: int, reason: str, details: str) -> None:
    before = embed_when_possible(client, ["one", "two"])

    [url] = client._channel.endpoints.urls
    with large_requests(url, callers):
        error = embed_until_rejected(client, reason)

    assert details in str(error)
    assert error.partial is not None and not error.partial.done.any()
    np.testing.assert_array_equal(embed_when_possible(client, ["one", "two"]), before)
