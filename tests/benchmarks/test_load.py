"""Load generators against targets of known speed."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from benchmarks.record import Request, Requests
from benchmarks.samples import load_throughput, successful_latencies
from benchmarks.serving.load import async_closed_loop, closed_loop, open_loop, plan_arrivals


class ConcurrencyCounter:
    """Records the largest number of concurrent requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self.most = 0

    def send(self, _item: str) -> None:
        with self._lock:
            self._in_flight += 1
            self.most = max(self.most, self._in_flight)
        time.sleep(0.005)
        with self._lock:
            self._in_flight -= 1


def test_closed_loop_limits_concurrency_and_sends_items_round_robin() -> None:
    counter = ConcurrencyCounter()
    requests = closed_loop(counter.send, ["a", "b", "c"], 4, 20)
    assert counter.most <= 4
    assert sorted(request.text_index or 0 for request in requests) == sorted(number % 3 for number in range(20))
    assert [request.start_s for request in requests] == sorted(request.start_s for request in requests)
    assert all(request.latency_s >= 0.005 for request in requests)


def test_failed_request_is_recorded_with_its_error() -> None:
    def send(item: int) -> None:
        if item == 2:
            raise TimeoutError

    requests = closed_loop(send, [1, 2], 1, 4)
    assert [request.error for request in requests] == [None, "TimeoutError"] * 2


def test_tasks_send_like_threads() -> None:
    in_flight, most = 0, 0

    async def send(item: int) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.005)
        in_flight -= 1
        if item == 2:
            raise TimeoutError

    requests = asyncio.run(async_closed_loop(send, [1, 2], 4, 20))
    assert most == 4
    assert [request.error for request in requests] == [None, "TimeoutError"] * 10
    assert [request.text_index for request in requests] == [0, 1] * 10
    assert [request.start_s for request in requests] == sorted(request.start_s for request in requests)
    assert all(request.latency_s >= 0.005 for request in requests)


def test_arrivals_are_poisson_and_reproducible() -> None:
    arrivals = plan_arrivals(50.0, 20_000, 3)
    assert arrivals == plan_arrivals(50.0, 20_000, 3)
    gaps = [later - sooner for sooner, later in zip([0.0, *arrivals], arrivals, strict=False)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.02, rel=0.03)
    # exponential gaps have a standard deviation equal to their mean
    assert variance**0.5 == pytest.approx(mean, rel=0.05)


def test_stall_delays_every_request_after_it() -> None:
    lock = threading.Lock()

    def send_serially(item: int) -> None:
        with lock:
            time.sleep(0.2 if item == 0 else 0.0)

    requests = open_loop(send_serially, list(range(10)), 1000.0, 10, 1)
    # all ten arrive within about 10 ms; nine wait for the first, and are measured from their scheduled start
    assert all(request.latency_s > 0.1 for request in requests)


def test_throughput_is_measured_from_the_first_start_to_the_last_response() -> None:
    requests = Requests.of(
        [
            Request(start_s=1.0, latency_s=0.5, text_index=0, error=None),
            Request(start_s=1.5, latency_s=1.5, text_index=1, error=None),
            Request(start_s=2.0, latency_s=0.5, text_index=0, error="ServerTimeoutError"),
        ]
    )
    throughput = load_throughput(requests)
    assert (throughput.requests_per_s, throughput.failed) == (1.0, 1)
    assert successful_latencies([requests, requests]) == [0.5, 1.5] * 2


def test_load_without_requests_has_no_throughput() -> None:
    with pytest.raises(ValueError, match="without requests"):
        load_throughput(Requests.of([]))
