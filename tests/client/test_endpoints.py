"""Choice between servers, with a clock that the test sets."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from qwen3_triton.client.endpoints import FIRST_PAUSE_S, LONGEST_PAUSE_S, Endpoint, Endpoints
from qwen3_triton.client.errors import ServerOverloadedError, ServerUnavailableError

DOWN = ServerUnavailableError("a: server\nunreachable")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def create(clock: Clock, *urls: str) -> Endpoints:
    return Endpoints(urls, clock=clock, jitter=lambda _, longest: longest)


def choose(endpoints: Endpoints, load: dict[str, int] | None = None) -> Endpoint:
    chosen = endpoints.choose(load or {})
    assert chosen is not None
    return chosen


def test_equal_servers_take_turns(clock: Clock) -> None:
    endpoints = create(clock, "a", "b", "c")
    assert Counter(choose(endpoints).url for _ in range(9)) == {"a": 3, "b": 3, "c": 3}


def test_the_server_with_less_to_do_is_chosen(clock: Clock) -> None:
    endpoints = create(clock, "a", "b", "c")
    assert {choose(endpoints, {"a": 10, "b": 5, "c": 7}).url for _ in range(9)} == {"b"}
    assert {choose(endpoints, {"a": 10, "b": 5}).url for _ in range(9)} == {"c"}


def test_a_failed_server_is_left_out_until_one_request_succeeds(clock: Clock) -> None:
    endpoints = create(clock, "a", "b")
    failed = next(endpoint for endpoint in (choose(endpoints), choose(endpoints)) if endpoint.url == "a")
    endpoints.failed(failed, clock(), DOWN)
    assert {choose(endpoints).url for _ in range(6)} == {"b"}
    clock.now_s += FIRST_PAUSE_S
    assert [choose(endpoints).url for _ in range(5)] == ["a", "b", "b", "b", "b"]
    endpoints.replied(failed)
    assert {choose(endpoints).url for _ in range(6)} == {"a", "b"}


def test_pauses_double_up_to_a_limit(clock: Clock) -> None:
    endpoints = create(clock, "a")
    endpoint = choose(endpoints)
    pauses = []
    for _ in range(8):
        endpoints.failed(endpoint, clock(), DOWN)
        pauses.append(endpoints.wait_s())
        assert endpoints.choose({}) is None
        clock.now_s += pauses[-1]
        assert endpoints.wait_s() == 0
        assert choose(endpoints) is endpoint
    assert pauses[:4] == pytest.approx([FIRST_PAUSE_S * 2**number for number in range(4)])
    assert pauses[-1] == LONGEST_PAUSE_S


def test_requests_in_flight_when_a_server_fails_count_once(clock: Clock) -> None:
    endpoints = create(clock, "a")
    endpoint = choose(endpoints)
    sent_s = clock()
    clock.now_s += 1
    for _ in range(5):
        endpoints.failed(endpoint, sent_s, DOWN)
    assert endpoint.failures == 1
    assert endpoints.wait_s() == pytest.approx(FIRST_PAUSE_S)


def test_pauses_are_random(clock: Clock) -> None:
    waits = set()
    for _ in range(20):
        endpoints = Endpoints(["a"], clock=clock)
        endpoints.failed(choose(endpoints), clock(), DOWN)
        waits.add(endpoints.wait_s())
    assert len(waits) > 10
    assert FIRST_PAUSE_S / 2 <= min(waits) <= max(waits) <= FIRST_PAUSE_S


def test_other_servers(clock: Clock) -> None:
    endpoints = create(clock, "a", "b")
    first, second = choose(endpoints), choose(endpoints)
    assert endpoints.has_other(first)
    endpoints.failed(second, clock(), DOWN)
    assert not endpoints.has_other(first)
    assert endpoints.has_other(second)
    endpoints.forget_failures()
    assert endpoints.has_other(first)


def test_the_log_has_an_outage_once_and_its_end(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "qwen3_triton")
    endpoints = create(clock, "a", "b")
    endpoint = choose(endpoints)
    endpoints.replied(endpoint)
    for error in (ServerOverloadedError("queue full"), DOWN, DOWN, ServerOverloadedError("queue full"), DOWN):
        clock.now_s += 1
        endpoints.failed(endpoint, clock(), error)
    endpoints.replied(endpoint)
    endpoints.replied(endpoint)
    first = [("WARNING", "server failed: a: server unreachable"), ("INFO", f"{endpoint.url}: the server replies again")]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == first
    endpoints.failed(endpoint, clock(), DOWN)
    endpoints.forget_failures()
    endpoints.failed(endpoint, clock(), DOWN)
    assert [record.levelname for record in caplog.records[2:]] == ["WARNING", "WARNING"]


def test_full_queues_are_not_outages(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "qwen3_triton")
    endpoints = create(clock, "a")
    endpoint = choose(endpoints)
    endpoints.failed(endpoint, clock(), ServerOverloadedError("queue full"))
    endpoints.replied(endpoint)
    assert caplog.records == []


def test_a_call_without_retries_gets_the_server_that_opens_first(clock: Clock) -> None:
    endpoints = create(clock, "a", "b")
    by_url = {endpoint.url: endpoint for endpoint in (choose(endpoints), choose(endpoints))}
    endpoints.failed(by_url["b"], clock(), DOWN)
    clock.now_s += FIRST_PAUSE_S / 2
    endpoints.failed(by_url["a"], clock(), DOWN)
    assert endpoints.choose({}) is None
    assert {endpoints.choose({}, waits=False) for _ in range(4)} == {by_url["b"]}
