"""Requests without token ids do not affect thousands of others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from qwen3_triton.client import EmbeddingClient
from qwen3_triton.client.manifest import ModelFolder
from qwen3_triton.export import ExportOptions, ServingOptions, SourceReference, export_model
from qwen3_triton.export.verification.runtime import WrittenModel
from qwen3_triton.server import ServerOptions, TritonServer, start_triton

REQUESTS = 10_000
EMPTY_RATE = 0.01
IN_FLIGHT = 96
TIMEOUT_S = 120
MODEL = "demo"
BUDGET = 600
EMPTY_SHAPES = [(1, 0), (5, 0), (64, 0)]


@dataclass(frozen=True)
class Served:
    """A server with the demo model, and a stub for raw requests."""

    server: TritonServer
    repository: Path
    stub: Any

    def start(self, ids: NDArray[np.int64]) -> grpc.Future:
        """Send a request of `ids` [rows, width]."""
        tensor = service_pb2.ModelInferRequest.InferInputTensor(name="input_ids", datatype="INT64", shape=ids.shape)
        output = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="embedding")
        request = service_pb2.ModelInferRequest(
            model_name=MODEL, inputs=[tensor], outputs=[output], raw_input_contents=[ids.tobytes()]
        )
        return self.stub.ModelInfer.future(request, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("served") / "models"
    checkpoint = SourceReference(str(project_root / "examples" / "demo" / "checkpoint"))
    serving = ServingOptions(max_batch_tokens=BUDGET)
    export_model(ExportOptions(model=checkpoint, repository=repository, name=MODEL, max_tokens=64, serving=serving))
    options = ServerOptions(exit_timeout_s=2)
    with start_triton(repository, options) as server, grpc.insecure_channel(server.grpc_url) as channel:
        yield Served(server, repository, service_pb2_grpc.GRPCInferenceServiceStub(channel))


def read_vectors(response: Any) -> NDArray[np.float32]:
    """Return FP32 [rows, D]."""
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(tuple(response.outputs[0].shape))


def test_empty_requests_do_not_affect_ten_thousand_others(served: Served) -> None:
    rng = np.random.default_rng(11)
    graph = WrittenModel(ModelFolder(served.repository / MODEL).graph(1), threads=1)
    samples = [rng.integers(0, 8000, (int(rng.integers(1, 4)), int(rng.integers(1, 9)))) for _ in range(200)]
    expected = [graph.run(ids.tolist()) for ids in samples]
    # Triton never responds to a request without rows, also in NVIDIA's images
    unanswered = [served.start(np.zeros((0, 0), np.int64)) for _ in range(3)]

    done: SimpleQueue[tuple[grpc.Future, int | None]] = SimpleQueue()
    counts = {"exact": 0, "wrong": 0, "empty": 0}
    pending = 0

    def check_one() -> None:
        call, sample = done.get(timeout=TIMEOUT_S)
        if sample is None:
            assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "no elements" in call.details()
            counts["empty"] += 1
        else:
            same = np.array_equal(read_vectors(call.result()), expected[sample])
            counts["exact" if same else "wrong"] += 1

    for number in range(REQUESTS):
        empty = rng.random() < EMPTY_RATE
        sample = None if empty else int(rng.integers(len(samples)))
        ids = np.zeros(EMPTY_SHAPES[number % 3], np.int64) if sample is None else samples[sample]
        call = served.start(ids)
        call.add_done_callback(lambda call, sample=sample: done.put((call, sample)))
        pending += 1
        if pending == IN_FLIGHT:
            check_one()
            pending -= 1
    for _ in range(pending):
        check_one()

    assert counts["wrong"] == 0
    assert counts["exact"] + counts["empty"] == REQUESTS
    assert 50 < counts["empty"] < 200
    assert not any(call.done() for call in unanswered)
    for call in unanswered:
        call.cancel()
    [stats] = served.stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=MODEL)).model_stats
    assert stats.execution_count < REQUESTS / 2


def test_client_is_not_affected_by_empty_requests(served: Served) -> None:
    texts = [f"def function_{number}(): return {number}" for number in range(300)]
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            served.start(np.zeros((2, 0), np.int64)).exception()
            time.sleep(0.001)

    with EmbeddingClient(served.server.grpc_url, MODEL, repository=served.repository, max_rows_per_request=4) as client:
        alone = client.embed_documents(texts)
        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            for _ in range(5):
                np.testing.assert_array_equal(client.embed_documents(texts), alone)
        finally:
            stop.set()
            thread.join()
