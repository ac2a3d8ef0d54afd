"""The Python-based backend in a real Triton: every request gets its own result, in shared batches."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import tiny_models
import tritonclient.grpc as grpc
from leftovers import processes_of, processor_time_s
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from qwen3_triton.server import TritonServer

REQUESTS = 240


@pytest.fixture
def client(server: TritonServer) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def as_inputs(arrays: Mapping[str, np.ndarray]) -> list[grpc.InferInput]:
    inputs = []
    for name, array in arrays.items():
        tensor = grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def infer_at_once(
    client: grpc.InferenceServerClient, model: str, requests: list[dict[str, np.ndarray]]
) -> list[grpc.InferResult | InferenceServerException]:
    """Send all requests at once and return the result or error of each."""
    done: queue.SimpleQueue[tuple[int, grpc.InferResult | InferenceServerException]] = queue.SimpleQueue()
    for index, request in enumerate(requests):
        client.async_infer(
            model, as_inputs(request), callback=lambda result, error, index=index: done.put((index, error or result))
        )
    results = dict(done.get(timeout=30) for _ in requests)
    return [results[index] for index in range(len(requests))]


STATISTICS_LIMIT_S = 10


def counts(client: grpc.InferenceServerClient, model: str) -> tuple[int, int]:
    """Return the numbers of processed rows and of executions so far."""
    stats = client.get_inference_statistics(model).model_stats[0]
    return stats.inference_count, stats.execution_count


def test_all_models_are_ready(server: TritonServer, client: grpc.InferenceServerClient) -> None:
    assert server.models == ("fixed", "lookup", "slow", "sums", "unbatched")
    assert client.is_server_ready()


def test_concurrent_ragged_requests_get_their_own_results_in_shared_batches(
    client: grpc.InferenceServerClient,
) -> None:
    rng = np.random.default_rng(0)
    shapes = rng.integers([1, 1], [8, 60], size=(REQUESTS, 2))
    requests = [{"input_ids": rng.integers(-1, 1000, size=shape, dtype=np.int64)} for shape in shapes]
    rows_before, executions_before = counts(client, "sums")

    results = infer_at_once(client, "sums", requests)

    for request, result in zip(requests, results, strict=True):
        assert not isinstance(result, Exception), result
        np.testing.assert_array_equal(result.as_numpy("total"), request["input_ids"].sum(1, keepdims=True))
    expected = rows_before + int(shapes[:, 0].sum())
    deadline = time.monotonic() + STATISTICS_LIMIT_S
    # Triton counts a batch after it has sent the replies
    while counts(client, "sums")[0] < expected and time.monotonic() < deadline:
        time.sleep(0.05)
    rows_after, executions_after = counts(client, "sums")
    assert rows_after == expected
    assert executions_after - executions_before < REQUESTS / 2


@pytest.mark.parametrize("shape", [(2, 0), (1, 0), (64, 0)])
def test_request_without_elements_gets_a_separate_error(
    client: grpc.InferenceServerClient, shape: tuple[int, int]
) -> None:
    good = [{"input_ids": np.full((2, width), 3, np.int64)} for width in range(1, 20)]
    empty = {"input_ids": np.zeros(shape, np.int64)}

    results = infer_at_once(client, "sums", [*good[:9], empty, *good[9:], empty])

    for error in (results.pop(9), results.pop()):
        assert isinstance(error, InferenceServerException)
        assert f"input_ids has shape {list(shape)} and no elements" in str(error)
        assert error.status() == "StatusCode.INVALID_ARGUMENT"
    for request, result in zip(good, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy("total"), request["input_ids"].sum(1, keepdims=True))


def test_failing_batch_is_an_error_for_each_request_and_the_model_stays_up(client: grpc.InferenceServerClient) -> None:
    bad = {"input_ids": np.full((1, 3), tiny_models.TABLE_ROWS, np.int64)}
    _, executions = counts(client, "lookup")

    errors = infer_at_once(client, "lookup", [bad] * 12)

    assert counts(client, "lookup")[1] - executions < 12
    assert all(isinstance(error, InferenceServerException) and "Gather" in str(error) for error in errors)
    (result,) = infer_at_once(client, "lookup", [{"input_ids": np.array([[1, 2]], np.int64)}])
    np.testing.assert_array_equal(result.as_numpy("total"), [[6]])


def test_failing_request_is_an_error_and_the_model_stays_up(client: grpc.InferenceServerClient) -> None:
    bad = {"input_ids": np.full((1, 3), tiny_models.TABLE_ROWS, np.int64)}
    good = {"input_ids": np.array([[1, 2, 3]], np.int64)}

    (error,) = infer_at_once(client, "lookup", [bad])
    (result,) = infer_at_once(client, "lookup", [good])

    assert isinstance(error, InferenceServerException)
    assert "Gather" in str(error)
    np.testing.assert_array_equal(result.as_numpy("total"), [[12]])


def test_cancelled_requests_are_not_computed(server: TritonServer, client: grpc.InferenceServerClient) -> None:
    def computed_s() -> float:
        return sum(map(processor_time_s, processes_of(server.pid)))

    long, short = {"input_ids": np.ones((1, 200), np.int64)}, {"input_ids": np.array([[3]], np.int64)}
    before_s = computed_s()
    (result,) = infer_at_once(client, "slow", [long])
    assert result.as_numpy("total").tolist() == [[200]]
    one_s = computed_s() - before_s
    first = threading.Event()
    calls = [client.async_infer("slow", as_inputs(short), callback=lambda **_: first.set())]
    calls += [client.async_infer("slow", as_inputs(long), callback=lambda **_: None) for _ in range(10)]
    assert first.wait(30)
    for call in calls:
        call.cancel()
    (result,) = infer_at_once(client, "slow", [short])
    assert result.as_numpy("total").tolist() == [[3]]
    # the one that was being computed; Triton hands two more to the backend in advance, and drops the rest itself
    assert computed_s() - before_s - one_s < 1.75 * one_s


def test_regular_inputs_batch_with_equal_shapes(client: grpc.InferenceServerClient) -> None:
    tables = [np.full((2, 3 + index % 2, 2), index, np.float32) for index in range(8)]

    results = infer_at_once(client, "fixed", [{"table": table} for table in tables])

    for table, result in zip(tables, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy("doubled"), 2 * table)
        np.testing.assert_array_equal(result.as_numpy("shapes"), [table.shape[1:]] * 2)


def test_only_requested_outputs_are_returned(client: grpc.InferenceServerClient) -> None:
    inputs = as_inputs({"table": np.ones((1, 1, 2), np.float32)})

    result = client.infer("fixed", inputs, outputs=[grpc.InferRequestedOutput("shapes")])

    assert [output.name for output in result.get_response().outputs] == ["shapes"]


def test_model_without_batch_axis(client: grpc.InferenceServerClient) -> None:
    requests = [{"values": np.arange(length, dtype=np.float32)} for length in (1, 5, 3)]

    results = infer_at_once(client, "unbatched", requests)

    for request, result in zip(requests, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy("sum"), [request["values"].sum()])
