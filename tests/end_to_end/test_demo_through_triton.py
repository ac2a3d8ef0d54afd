"""The demo checkpoint and adapter, exported and served by a real tritonserver to concurrent clients."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from examples.demo.evaluation import load_evaluation_set, ndcg_at_10
from examples.demo.retrieval_set import write_retrieval_set
from examples.demo.run import MAX_NDCG_LOSS
from examples.demo.tasks import ADAPTER_TASK, BASE_TASK, DemoTask
from qwen3_triton.client import EmbeddingClient, ExportRecord, InvalidInputError, Manifest, Precision
from qwen3_triton.client.manifest import INPUT_IDS, MANIFEST_PARAMETER, ROW_STATUS, RowStatus
from qwen3_triton.export import AdapterReference, EvaluationOptions, ExportOptions, SourceReference, export_model
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.parity import cosines
from qwen3_triton.export.verification.reference import ReferenceModel
from qwen3_triton.server import TritonServer, start_triton

REQUESTS = 500
CONNECTIONS = 32
SAME = 1 - 1e-5
STATISTICS_TIMEOUT_S = 10.0
FLOAT32_NOISE = 1e-6

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running server with the models `demo-fp32`, `demo-fp16` and `demo-int8`."""

    server: TritonServer
    repository: Path
    checkpoint: Path

    def client(self, precision: Precision = Precision.FP32) -> EmbeddingClient:
        return EmbeddingClient(self.server.grpc_url, f"demo-{precision}", repository=self.repository)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[Deployment]:
    repository = tmp_path_factory.mktemp("served") / "models"
    folder = tmp_path_factory.mktemp("evaluation")
    write_retrieval_set(load_evaluation_set(BASE_TASK), folder)
    judged = EvaluationOptions(folder=folder, max_ndcg_loss=MAX_NDCG_LOSS)
    demo = project_root / "examples" / "demo"
    for precision in (Precision.FP32, Precision.FP16, Precision.INT8):
        export_model(
            ExportOptions(
                model=SourceReference(str(demo / "checkpoint")),
                adapters=(AdapterReference(SourceReference(str(demo / "adapter"))),),
                repository=repository,
                name=f"demo-{precision}",
                precision=precision,
                max_tokens=512,
                evaluation=judged if precision is Precision.INT8 else EvaluationOptions(),
            )
        )
    with start_triton(repository) as server:
        yield Deployment(server, repository, demo / "checkpoint")


@dataclass(frozen=True, slots=True)
class RawRequest:
    """Rows of ids with padding in any place, and which of them are bad."""

    ids: NDArray[np.int64]
    plain: tuple[tuple[int, ...], ...]
    """The rows without padding."""
    bad: tuple[bool, ...]


def _make_request(rng: random.Random, vocabulary: int, *, with_bad_row: bool) -> RawRequest:
    rows = [[rng.randrange(vocabulary) for _ in range(rng.randint(1, 60))] for _ in range(rng.randint(1, 5))]
    bad = [False] * len(rows)
    if with_bad_row:
        bad[-1] = True
        rows[-1] = [] if rng.random() < 0.5 else [*rows[-1], vocabulary]
    width = max(1, *map(len, rows)) + rng.randint(0, 4)
    ids = np.full((len(rows), width), -1 - rng.randrange(3), np.int64)
    for index, row in enumerate(rows):
        places = sorted(rng.sample(range(width), len(row))) if rng.random() < 0.3 else None
        start = rng.choice([0, width - len(row)])
        ids[index, places if places is not None else slice(start, start + len(row))] = row
    return RawRequest(ids, tuple(map(tuple, rows)), tuple(bad))


def _infer(client: triton.InferenceServerClient, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    tensor = triton.InferInput(INPUT_IDS, list(ids.shape), "INT64")
    tensor.set_data_from_numpy(ids)
    reply = client.infer("demo-fp32", [tensor])
    vectors = np.asarray(reply.as_numpy("embedding"))
    # no row is lost: the local server rejects requests without ids
    status = np.where(np.isnan(vectors).any(axis=1), RowStatus.INVALID, RowStatus.VALID)
    np.testing.assert_array_equal(reply.as_numpy(ROW_STATUS), status[:, None])
    return vectors


def _statistics_after(client: triton.InferenceServerClient, inference_count: int) -> service_pb2.ModelStatistics:
    """Wait until the statistics count `inference_count` rows: Triton updates them after the response."""
    deadline_s = time.monotonic() + STATISTICS_TIMEOUT_S
    while True:
        found = client.get_inference_statistics("demo-fp32").model_stats[0]
        if found.inference_count >= inference_count or time.monotonic() > deadline_s:
            return found
        time.sleep(0.05)


def test_500_concurrent_requests_are_batched_and_equal_single_requests(deployment: Deployment) -> None:
    rng = random.Random(7)
    with deployment.client() as client:
        vocabulary = client.manifest.vocabulary_size
    requests = [_make_request(rng, vocabulary, with_bad_row=number % 10 == 0) for number in range(REQUESTS)]
    with triton.InferenceServerClient(deployment.server.grpc_url) as client:
        before = client.get_inference_statistics("demo-fp32").model_stats[0]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            responses = list(pool.map(lambda request: _infer(client, request.ids), requests))
        rows = sum(len(request.plain) for request in requests)
        after = _statistics_after(client, before.inference_count + rows)
        alone = {
            row: _infer(client, np.asarray([row], np.int64))[0]
            for request in requests[::5]
            for row, bad in zip(request.plain, request.bad, strict=True)
            if not bad
        }
    assert after.inference_count - before.inference_count == rows
    executions = after.execution_count - before.execution_count
    assert executions < REQUESTS / 2, f"{executions} executions for {REQUESTS} requests"
    checked = 0
    for request, answer in zip(requests, responses, strict=True):
        assert answer.shape == (len(request.plain), 256)
        assert np.isnan(answer).all(axis=1).tolist() == list(request.bad)
        for row, vector, bad in zip(request.plain, answer, request.bad, strict=True):
            if not bad and row in alone:
                assert float(vector @ alone[row]) >= SAME
                checked += 1
    assert checked >= REQUESTS / 5


def test_served_vectors_equal_the_reference(deployment: Deployment, project_root: Path) -> None:
    from transformers import AutoTokenizer

    texts = ["def add(a, b):\n    return a + b", "読み込む", "🙂", "", "a much longer text " * 30]
    tokenizer = AutoTokenizer.from_pretrained(deployment.checkpoint)
    checkpoint = open_checkpoint(SourceReference(str(deployment.checkpoint)))
    from qwen3_triton.export.passes.merge import merge_adapters
    from qwen3_triton.export.sources.adapter import open_adapter

    adapter = open_adapter(AdapterReference(SourceReference(str(project_root / "examples/demo/adapter"))))
    merged = checkpoint.with_weights(merge_adapters(checkpoint.weights, [adapter]).weights)
    rows = [list(tokenizer(text)["input_ids"]) for text in texts]
    truth = ReferenceModel(merged).embed(rows, lambda _done, _total: None).vectors
    for precision, gate in ((Precision.FP32, 0.999999), (Precision.FP16, 0.9999), (Precision.INT8, 0.99)):
        with deployment.client(precision) as client:
            served = client.embed_documents(texts)
        assert cosines(served, truth).min() >= gate - FLOAT32_NOISE


@pytest.mark.parametrize(
    "task", [BASE_TASK, pytest.param(ADAPTER_TASK, marks=pytest.mark.slow)], ids=["base-task", "adapter-task"]
)
def test_int8_ndcg_is_close_to_fp32(deployment: Deployment, task: DemoTask) -> None:
    """nDCG@10 within half a point, and every embedding within the gate."""
    evaluation_set = load_evaluation_set(task)

    def embed(precision: Precision) -> tuple[Vectors, Vectors]:
        with deployment.client(precision) as client:
            queries = client.embed_queries(list(evaluation_set.queries), instruction=evaluation_set.instruction)
            return queries, client.embed_documents(list(evaluation_set.documents))

    exact_queries, exact_documents = embed(Precision.FP32)
    queries, documents = embed(Precision.INT8)
    exact = ndcg_at_10(exact_queries, exact_documents, evaluation_set.relevance)
    assert exact >= 0.3
    assert abs(ndcg_at_10(queries, documents, evaluation_set.relevance) - exact) <= 0.005
    assert cosines(exact_queries, queries).min() >= 0.99
    assert cosines(exact_documents, documents).min() >= 0.99


@pytest.mark.slow
def test_manifest_ndcg_equals_served_ndcg(deployment: Deployment) -> None:
    """The nDCG of the export equals that of the client with the default instruction."""
    evaluation_set = load_evaluation_set(BASE_TASK)

    def served(precision: Precision) -> float:
        with deployment.client(precision) as client:
            queries = client.embed_queries(list(evaluation_set.queries))
            return ndcg_at_10(queries, client.embed_documents(list(evaluation_set.documents)), evaluation_set.relevance)

    record = ExportRecord.from_json((deployment.repository / "demo-int8" / "manifest.json").read_text(encoding="utf-8"))
    report = record.retrieval
    assert report is not None
    assert (report.queries, report.documents) == (len(evaluation_set.queries), len(evaluation_set.documents))
    assert report.ndcg_at_10 == pytest.approx(served(Precision.INT8), abs=1e-6)
    assert report.reference_ndcg_at_10 == pytest.approx(served(Precision.FP32), abs=1e-3)
    assert abs(report.ndcg_loss) <= MAX_NDCG_LOSS == report.ndcg_loss_tolerance


def test_client_truncates_dimensions_and_keeps_order(deployment: Deployment) -> None:
    texts = [f"text number {number} " * (number % 7 + 1) for number in range(150)]
    with deployment.client() as client:
        full = client.embed_documents(texts)
        cut = client.embed_documents(texts, dim=64)
        single = np.concatenate([client.embed_documents([text]) for text in texts[::25]])
        queries = client.embed_queries(texts[:3], instruction="another task")
        with pytest.raises(InvalidInputError):
            client.embed_documents(texts, dim=257)
    expected = full[:, :64] / np.linalg.norm(full[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)
    assert cosines(full[::25], single).min() >= SAME
    assert not np.allclose(queries, full[:3], atol=1e-3)


def test_server_returns_the_exported_manifest(deployment: Deployment) -> None:
    record = ExportRecord.from_json((deployment.repository / "demo-fp16" / "manifest.json").read_text(encoding="utf-8"))
    with triton.InferenceServerClient(deployment.server.grpc_url) as client:
        config = client.get_model_config("demo-fp16").config
    assert Manifest.from_json(config.parameters[MANIFEST_PARAMETER].string_value) == record.manifest
    with deployment.client(Precision.FP16) as client:
        assert client.manifest == record.manifest
    assert record.parity is not None
    assert record.parity.passed
    assert record.adapters[0].sha256 != record.checkpoint.sha256
