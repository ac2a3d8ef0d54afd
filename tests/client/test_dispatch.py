"""Decisions of a call, without a server."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake_triton import write_reply

from qwen3_triton.client.call_counts import CallCounts
from qwen3_triton.client.call_deadline import CallDeadline
from qwen3_triton.client.dispatch import CallLimits, Dispatch, Sending
from qwen3_triton.client.endpoints import Endpoints
from qwen3_triton.client.errors import ServerError, ServerTimeoutError, ServerUnavailableError
from qwen3_triton.client.model_outputs import FloatOutput
from qwen3_triton.client.pacing import Pace
from qwen3_triton.client.requests import RequestLimits, RowRequest

UNAVAILABLE = ServerUnavailableError("stopping")


def requests(count: int, tokens: int = 10) -> Iterator[RowRequest]:
    for position in range(count):
        yield RowRequest(np.asarray([position]), np.ones((1, tokens), np.int64))


def create(
    endpoints: Endpoints | None = None,
    *,
    call_timeout_s: float | None = None,
    retry_timeout_s: float = 30,
    most: int = 4,
) -> Dispatch:
    limits = CallLimits(
        timeout_s=60, retry_timeout_s=retry_timeout_s, max_in_flight=most, deadline=CallDeadline.start(call_timeout_s)
    )
    pace = Pace(RequestLimits(rows=8), None)
    return Dispatch(endpoints or Endpoints(["a"]), pace, FloatOutput(name="embedding", width=2), limits, CallCounts())


def state(dispatch: Dispatch) -> list[str]:
    """Names of the properties that are true."""
    return [name for name in ("needs_requests", "is_last", "is_out_of_time", "is_done") if getattr(dispatch, name)]


def send_all(dispatch: Dispatch) -> list[Sending]:
    sent = []
    while (sending := dispatch.next()) is not None:
        sent.append(sending)
    return sent


def reply_to(dispatch: Dispatch, sending: Sending, after_s: float = 0.01) -> None:
    response: Any = write_reply(np.ones((1, 2), np.float32))
    dispatch.replied(sending, response, sending.paced.sent_s + after_s)


def test_a_call_from_its_first_request_to_its_last_reply() -> None:
    dispatch = create(most=2)
    assert state(dispatch) == ["needs_requests"]
    dispatch.add(requests(3))
    first, second = send_all(dispatch)
    assert state(dispatch) == []
    assert dispatch.wait_s() is None
    reply_to(dispatch, first)
    [third] = send_all(dispatch)
    reply_to(dispatch, second)
    assert state(dispatch) == ["needs_requests"]
    dispatch.add(None)
    assert state(dispatch) == ["is_last"]
    reply_to(dispatch, third)
    assert state(dispatch) == ["is_done"]


def test_a_failed_request_is_sent_again_after_a_pause() -> None:
    endpoints = Endpoints(["a"], jitter=lambda _, longest: longest)
    dispatch = create(endpoints)
    dispatch.add(requests(1))
    dispatch.add(None)
    [sent] = send_all(dispatch)
    dispatch.failed(sent, UNAVAILABLE)
    assert dispatch.next() is None
    wait_s = dispatch.wait_s()
    assert wait_s is not None and 0 < wait_s <= 0.1
    endpoints.forget_failures()
    [again] = send_all(dispatch)
    assert again.request is sent.request


def test_errors_that_are_not_retried() -> None:
    dispatch = create()
    dispatch.add(requests(1))
    [sent] = send_all(dispatch)
    error = ServerTimeoutError("too late")
    with pytest.raises(ServerTimeoutError) as caught:
        dispatch.failed(sent, error)
    assert caught.value is error


def test_no_retries() -> None:
    dispatch = create(retry_timeout_s=0)
    dispatch.add(requests(1))
    [sent] = send_all(dispatch)
    with pytest.raises(ServerUnavailableError):
        dispatch.failed(sent, UNAVAILABLE)


def test_a_call_waits_for_a_reply_if_the_next_one_would_be_too_late() -> None:
    """It neither sends the request nor asks again and again."""
    dispatch = create(call_timeout_s=5)
    dispatch.add(requests(9, tokens=1_000))
    first, *others = send_all(dispatch)
    assert others
    reply_to(dispatch, first, after_s=100)
    assert dispatch.next() is None
    assert dispatch.wait_s() is None
    assert state(dispatch) == []
    for sending in others:
        reply_to(dispatch, sending, after_s=100)
    assert dispatch.next() is None
    assert state(dispatch) == ["is_out_of_time", "is_done"]


def test_a_call_without_a_deadline_waits_as_long_as_it_takes() -> None:
    dispatch = create()
    assert dispatch.deadline.remaining_s == math.inf
    dispatch.add(requests(2))
    assert all(sending.timeout_s == 60 for sending in send_all(dispatch))


def test_rows_that_stay_lost() -> None:
    dispatch = create()
    dispatch.add(requests(1))
    lost = np.asarray([[0x7FC00001, 0]], np.uint32).view(np.float32)
    with pytest.raises(ServerError, match="lost 1 rows 6 times"):
        for _ in range(10):
            [sending] = send_all(dispatch)
            dispatch.replied(sending, write_reply(lost), sending.paced.sent_s)


@pytest.mark.parametrize(("retry_timeout_s", "sent"), [(0, 1), (30, 0)])
def test_only_calls_with_retries_wait_for_a_server_that_failed_for_another_call(
    retry_timeout_s: float, sent: int
) -> None:
    endpoints = Endpoints(["a"])
    other = create(endpoints)
    other.add(requests(1))
    [sending] = send_all(other)
    other.failed(sending, UNAVAILABLE)
    dispatch = create(endpoints, retry_timeout_s=retry_timeout_s)
    dispatch.add(requests(1))
    assert len(send_all(dispatch)) == sent
