"""Load on anything that answers requests: closed loop and open loop; the raw times of every request.

Closed: `in_flight` callers, each of which sends its next request when its last one is answered. Open: requests
arrive by a Poisson process whatever the server does, and a latency counts from the planned start, so that a stall
shows in every request that it held up (Tene's coordinated omission).
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..record import Request

Item = TypeVar("Item")
Send = Callable[[Item], None]
"""Sends one request and waits for its answer; raises where it fails."""
_MOST_CALLERS = 256
_START_S = 0.05


def closed_loop(send: Send[Item], items: Sequence[Item], in_flight: int, requests: int) -> list[Request]:
    """`requests` requests over `items` in turn, `in_flight` at any time, in the order in which they were sent."""
    places = itertools.count()
    turn = threading.Lock()
    answers: list[Request] = []
    begun = time.perf_counter()

    def call() -> None:
        while True:
            with turn:
                place = next(places)
            if place >= requests:
                return
            started = time.perf_counter() - begun
            answered = _send(send, items[place % len(items)], place % len(items), started, begun)
            with turn:
                answers.append(answered)

    _in_threads(call, in_flight)
    return sorted(answers, key=lambda request: request.start_s)


def open_loop(send: Send[Item], items: Sequence[Item], rate_per_s: float, requests: int, seed: int) -> list[Request]:
    """`requests` requests over `items` in turn that arrive at `rate_per_s`, in the order of their arrivals."""
    arrivals = plan_arrivals(rate_per_s, requests, seed)
    begun = time.perf_counter() + _START_S

    def call(place: int) -> Request:
        return _send(send, items[place % len(items)], place % len(items), arrivals[place], begun)

    with ThreadPoolExecutor(_MOST_CALLERS) as pool:
        waiting = []
        for place, arrival in enumerate(arrivals):
            time.sleep(max(0.0, begun + arrival - time.perf_counter()))
            waiting.append(pool.submit(call, place))
        return [answer.result() for answer in waiting]


def plan_arrivals(rate_per_s: float, requests: int, seed: int) -> list[float]:
    """Seconds at which requests arrive, with exponential gaps of mean 1 / `rate_per_s`; the same for the same seed."""
    dice = random.Random(seed)
    return list(itertools.accumulate(dice.expovariate(rate_per_s) for _ in range(requests)))


def _send(send: Send[Item], item: Item, place: int, start_s: float, begun: float) -> Request:
    error = None
    try:
        send(item)
    except Exception as exc:  # noqa: BLE001 - a request that failed is a figure, whatever it failed of
        error = type(exc).__name__
    latency = time.perf_counter() - begun - start_s
    return Request(start_s=round(start_s, 6), latency_s=round(latency, 6), item=place, error=error)


def _in_threads(call: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
