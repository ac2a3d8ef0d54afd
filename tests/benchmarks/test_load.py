"""Load drivers against something whose speed is known."""

from __future__ import annotations

import threading
import time

import pytest

from benchmarks.record import Request, Requests
from benchmarks.samples import answered_latencies, load_speed
from benchmarks.serving.load import closed_loop, open_loop, plan_arrivals


class Crowd:
    """Counts who is inside at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def send(self, _item: str) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        time.sleep(0.005)
        with self._lock:
            self._inside -= 1


def test_closed_loop_keeps_so_many_in_flight_and_takes_items_in_turn() -> None:
    crowd = Crowd()
    requests = closed_loop(crowd.send, ["a", "b", "c"], 4, 20)
    assert crowd.most <= 4
    assert sorted(request.item or 0 for request in requests) == sorted(place % 3 for place in range(20))
    assert [request.start_s for request in requests] == sorted(request.start_s for request in requests)
    assert all(request.latency_s >= 0.005 for request in requests)


def test_failed_request_is_kept_with_its_error() -> None:
    def send(item: int) -> None:
        if item == 2:
            raise TimeoutError

    requests = closed_loop(send, [1, 2], 1, 4)
    assert [request.error for request in requests] == [None, "TimeoutError"] * 2


def test_arrivals_are_poisson_and_the_same_every_time() -> None:
    arrivals = plan_arrivals(50.0, 20_000, 3)
    assert arrivals == plan_arrivals(50.0, 20_000, 3)
    gaps = [later - sooner for sooner, later in zip([0.0, *arrivals], arrivals, strict=False)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.02, rel=0.03)
    # the deviation of exponential gaps is their mean
    assert variance**0.5 == pytest.approx(mean, rel=0.05)


def test_stall_shows_in_the_latency_of_every_request_behind_it() -> None:
    door = threading.Lock()

    def one_at_a_time(item: int) -> None:
        with door:
            time.sleep(0.2 if item == 0 else 0.0)

    requests = open_loop(one_at_a_time, list(range(10)), 1000.0, 10, 1)
    # the ten arrive within some 10 ms; nine of them wait for the first one, and count from their planned start
    assert all(request.latency_s > 0.1 for request in requests)


def test_speed_is_answers_from_the_first_start_to_the_last_answer() -> None:
    requests = Requests.of(
        [
            Request(start_s=1.0, latency_s=0.5, item=0, error=None),
            Request(start_s=1.5, latency_s=1.5, item=1, error=None),
            Request(start_s=2.0, latency_s=0.5, item=0, error="ServerTimeoutError"),
        ]
    )
    speed = load_speed(requests)
    assert (speed.requests_per_s, speed.failed) == (1.0, 1)
    assert answered_latencies([requests, requests]) == [0.5, 1.5] * 2


def test_load_without_requests_has_no_speed() -> None:
    with pytest.raises(ValueError, match="without a request"):
        load_speed(Requests.of([]))
