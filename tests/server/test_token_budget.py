"""The batching strategy library in a real Triton: the content of each batch, as reported by the model."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tiny_models
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from qwen3_triton.server import ModelLoadError, ServerOptions, TritonServer, start_triton

BUDGET = 1000
SMALL = 100
TIMEOUT_S = 60


@dataclass(frozen=True)
class Totals:
    """Content of the batch that computed a request."""

    tokens: int
    rows: int
    requests: int


class Model:
    """One model of the server."""

    def __init__(self, stub: Any, name: str) -> None:
        self._stub = stub
        self.name = name

    def start(self, ids: NDArray[np.int64], timeout_s: float = TIMEOUT_S) -> grpc.Future:
        """Send a request of `ids` `[rows, width]` without waiting for its result."""
        tensor = service_pb2.ModelInferRequest.InferInputTensor(name="input_ids", datatype="INT64", shape=ids.shape)
        request = service_pb2.ModelInferRequest(
            model_name=self.name, inputs=[tensor], raw_input_contents=[ids.tobytes()]
        )
        return self._stub.ModelInfer.future(request, timeout=timeout_s)

    def executions(self) -> int:
        """Return the number of batches computed so far."""
        [stats] = self._stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=self.name)).model_stats
        return int(stats.execution_count)


def tokens(count: int, rows: int = 1, padding: int = 0) -> NDArray[np.int64]:
    """Return `rows` rows of `count` token ids, with `padding` padding ids before each row."""
    return np.concatenate([np.full((rows, padding), -1), np.ones((rows, count))], axis=1).astype(np.int64)


def totals_of(call: grpc.Future) -> Totals:
    """Return the totals that every row of the result reports."""
    response = call.result()
    found = np.frombuffer(response.raw_output_contents[0], np.int64).reshape(-1, 3)
    assert (found == found[0]).all()
    return Totals(*found[0].tolist())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("repository")
    tiny_models.write_batch_totals(repository, "loaded", max_batch_tokens=BUDGET, work=20)
    tiny_models.write_batch_totals(repository, "pair", max_batch_tokens=BUDGET, work=20, instances=2)
    tiny_models.write_batch_totals(repository, "delayed", max_batch_tokens=BUDGET, work=20, queue_delay_us=2000)
    tiny_models.write_batch_totals(repository, "slow", max_batch_tokens=SMALL, work=1500)
    # a delay long enough for several requests to be pending, which are reconsidered with each new one
    tiny_models.write_batch_totals(repository, "patient", max_batch_tokens=SMALL, queue_delay_us=300_000)
    tiny_models.write_batch_totals(
        repository, "padded", max_batch_tokens=BUDGET, max_batch_cells=SMALL, queue_delay_us=300_000
    )
    with start_triton(repository, ServerOptions(exit_timeout_s=2)) as server:
        yield server


@pytest.fixture(scope="module")
def stub(running: TritonServer) -> Iterator[Any]:
    with grpc.insecure_channel(running.grpc_url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture
def slow(stub: Any) -> Model:
    """A model with one instance that takes about a second per batch."""
    return Model(stub, "slow")


@pytest.fixture
def patient(stub: Any) -> Model:
    """A model that computes immediately, but lets requests wait for others."""
    return Model(stub, "patient")


def start_apart(model: Model, requests: list[NDArray[np.int64]]) -> list[grpc.Future]:
    """Send the requests in order, each after the previous one has reached the scheduler."""
    calls = []
    for request in requests:
        calls.append(model.start(request))
        time.sleep(0.05)
    return calls


@pytest.mark.parametrize(
    ("name", "cancelled"), [("loaded", 0.0), ("loaded", 0.2), ("pair", 0.0), ("pair", 0.2), ("delayed", 0.0)]
)
def test_no_batch_exceeds_the_budget_under_load(stub: Any, name: str, cancelled: float) -> None:
    model = Model(stub, name)
    executions = model.executions()
    finished: list[tuple[NDArray[np.int64], Totals]] = []
    lock = threading.Lock()

    def send(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(25):
            rows, width = int(rng.choice([1, 1, 2, 4, 8])), int(rng.integers(1, 60))
            if rng.random() < 0.04:
                rows, width = 1, int(rng.integers(300, 1600))
            ids = rng.integers(-1, 9, (rows, width))
            call = model.start(ids)
            if rng.random() < cancelled:
                time.sleep(rng.random() * 0.02)
                call.cancel()
            else:
                with lock:
                    finished.append((ids, totals_of(call)))

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(send, range(40)))

    sizes = [(int((ids >= 0).sum()), totals) for ids, totals in finished]
    large = [(own, totals) for own, totals in sizes if own > BUDGET]
    assert all(totals.tokens <= BUDGET for own, totals in sizes if own <= BUDGET)
    assert large
    assert all(totals == Totals(own, 1, 1) for own, totals in large)
    # requests shared batches, which used their budget
    assert model.executions() - executions < 0.75 * len(finished)
    assert max(totals.tokens for own, totals in sizes if own <= BUDGET) > 0.9 * BUDGET


def test_a_waiting_batch_grows_up_to_its_budget(slow: Model) -> None:
    busy, first, joins, too_large, next_one = start_apart(slow, [tokens(5), *map(tokens, (60, 30, 20, 7))])
    assert totals_of(busy) == Totals(5, 1, 1)
    # 60 waits for the instance, 30 joins it, and 20 would exceed the budget of 100
    assert totals_of(first) == totals_of(joins) == Totals(90, 2, 2)
    assert totals_of(too_large) == totals_of(next_one) == Totals(27, 2, 2)


def test_a_waiting_batch_does_not_accept_a_request_without_elements(slow: Model) -> None:
    empty = np.zeros((3, 0), np.int64)
    busy, before, alone, after = start_apart(slow, [tokens(5), tokens(10), empty, tokens(20)])
    assert totals_of(busy).requests == 1
    assert totals_of(before) == Totals(10, 1, 1)
    assert "no elements" in alone.details()
    assert totals_of(after) == Totals(20, 1, 1)


def test_a_request_without_elements_does_not_share_its_batch(slow: Model) -> None:
    busy, alone, after = start_apart(slow, [tokens(5), np.zeros((2, 0), np.int64), tokens(20)])
    assert totals_of(busy).requests == 1
    assert "no elements" in alone.details()
    assert totals_of(after) == Totals(20, 1, 1)


def test_a_request_larger_than_the_budget_is_computed_separately(slow: Model) -> None:
    busy, large, after = start_apart(slow, [tokens(5), tokens(SMALL, rows=3), tokens(20)])
    assert totals_of(busy).requests == 1
    assert totals_of(large) == Totals(3 * SMALL, 3, 1)
    assert totals_of(after) == Totals(20, 1, 1)


def test_cancelled_requests_do_not_count(slow: Model) -> None:
    busy = slow.start(tokens(5))
    time.sleep(0.05)
    # too large to share a batch with the next ones, and cancelled before an instance is free
    for call in start_apart(slow, [tokens(90), tokens(90), tokens(90)]):
        call.cancel()
    calls = start_apart(slow, [tokens(40), tokens(40)])
    assert totals_of(busy).requests == 1
    assert all(totals_of(call).tokens <= SMALL for call in calls)


def test_pending_requests_are_counted_once(patient: Model) -> None:
    # each new request makes the scheduler reconsider all pending ones
    calls = start_apart(patient, [tokens(20), tokens(20), tokens(20)])
    assert {totals_of(call) for call in calls} == {Totals(60, 3, 3)}


def test_cancelled_pending_requests_are_not_counted(patient: Model) -> None:
    for call in start_apart(patient, [tokens(90)]):
        call.cancel()
    # a batch that counted the cancelled request would exclude the others for half a minute
    calls = [patient.start(request, timeout_s=15) for request in (tokens(40), tokens(30))]
    assert {totals_of(call) for call in calls} == {Totals(70, 2, 2)}


def test_padding_is_not_counted(patient: Model) -> None:
    calls = start_apart(patient, [tokens(10, padding=60), tokens(10, padding=60)])
    assert {totals_of(call) for call in calls} == {Totals(20, 2, 2)}


def test_rows_are_bounded_by_the_cells_of_their_padding(stub: Any) -> None:
    model = Model(stub, "padded")
    # 3 rows padded to 30 have 90 cells; a fourth would make 120
    calls = start_apart(model, [tokens(30), tokens(2), tokens(2), tokens(2)])
    assert [totals_of(call).rows for call in calls] == [3, 3, 3, 1]


def test_a_request_without_rows_does_not_delay_others(stub: Any) -> None:
    model = Model(stub, "loaded")
    never = [model.start(np.zeros((0, 0), np.int64)) for _ in range(3)]
    calls = [model.start(tokens(count)) for count in range(1, 40)]
    assert all(totals_of(call).tokens >= count for call, count in zip(calls, itertools.count(1), strict=False))
    for call in never:
        call.cancel()


@pytest.mark.parametrize("budget", ["", "0", "many", "12x", "-3"])
def test_an_invalid_budget_prevents_the_model_from_loading(tmp_path: Path, budget: str) -> None:
    tiny_models.write_batch_totals(tmp_path / "repository", max_batch_tokens=budget)
    with pytest.raises(ModelLoadError, match=r"set the parameter max_batch_tokens in config\.pbtxt to a whole number"):
        start_triton(tmp_path / "repository")
