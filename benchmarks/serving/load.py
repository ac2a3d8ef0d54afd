"""Closed-loop and open-loop load generators that record the times of every request.

Closed loop: `in_flight` callers, each of which sends its next request when the previous one has completed. Open loop:
requests arrive as a Poisson process regardless of the server's state, and latency is measured from the scheduled start,
so that a stall counts for every request that it delays (Gil Tene's "coordinated omission").
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..record import Request

Item = TypeVar("Item")
Send = Callable[[Item], None]
"""Sends one request and waits for the response; raises if it fails."""
AsyncSend = Callable[[Item], Awaitable[None]]
_MAX_CALLERS = 256
_START_DELAY_S = 0.05


def closed_loop(send: Send[Item], items: Sequence[Item], in_flight: int, requests: int) -> list[Request]:
    """Send requests with a fixed concurrency.

    Args:
        send: sends one item.
        items: items to send, round-robin.
        in_flight: concurrent requests.
        requests: total number of requests.

    Returns:
        The requests, in the order of their start times.
    """
    numbers = itertools.count()
    lock = threading.Lock()
    completed: list[Request] = []
    origin = time.perf_counter()

    def call() -> None:
        while True:
            with lock:
                number = next(numbers)
            if number >= requests:
                return
            start_s = time.perf_counter() - origin
            request = _send(send, items[number % len(items)], number % len(items), start_s, origin)
            with lock:
                completed.append(request)

    _in_threads(call, in_flight)
    return sorted(completed, key=lambda request: request.start_s)


async def async_closed_loop(
    send: AsyncSend[Item], items: Sequence[Item], in_flight: int, requests: int
) -> list[Request]:
    """Send requests with a fixed concurrency, from the tasks of an event loop; otherwise like `closed_loop`."""
    numbers = iter(range(requests))
    completed: list[Request] = []
    origin = time.perf_counter()

    async def call() -> None:
        for number in numbers:
            index, error, start_s = number % len(items), None, time.perf_counter() - origin
            try:
                await send(items[index])
            except Exception as exc:  # noqa: BLE001 - any failure is a result
                error = type(exc).__name__
            completed.append(_completed(index, start_s, origin, error))

    await asyncio.gather(*(call() for _ in range(in_flight)))
    return sorted(completed, key=lambda request: request.start_s)


def open_loop(send: Send[Item], items: Sequence[Item], rate_per_s: float, requests: int, seed: int) -> list[Request]:
    """Send requests at random times with a fixed mean rate.

    Args:
        send: sends one item.
        items: items to send, round-robin.
        rate_per_s: mean arrival rate.
        requests: total number of requests.
        seed: seed of the arrival times.

    Returns:
        The requests, in the order of their arrivals.
    """
    arrivals = plan_arrivals(rate_per_s, requests, seed)
    origin = time.perf_counter() + _START_DELAY_S

    def call(number: int) -> Request:
        return _send(send, items[number % len(items)], number % len(items), arrivals[number], origin)

    with ThreadPoolExecutor(_MAX_CALLERS) as pool:
        futures = []
        for number, arrival in enumerate(arrivals):
            time.sleep(max(0.0, origin + arrival - time.perf_counter()))
            futures.append(pool.submit(call, number))
        return [future.result() for future in futures]


def plan_arrivals(rate_per_s: float, requests: int, seed: int) -> list[float]:
    """Return arrival times in seconds, with exponential gaps of mean 1 / `rate_per_s`."""
    rng = random.Random(seed)
    return list(itertools.accumulate(rng.expovariate(rate_per_s) for _ in range(requests)))


def _send(send: Send[Item], item: Item, index: int, start_s: float, origin: float) -> Request:
    error = None
    try:
        send(item)
    except Exception as exc:  # noqa: BLE001 - any failure is a result
        error = type(exc).__name__
    return _completed(index, start_s, origin, error)


def _completed(index: int, start_s: float, origin: float, error: str | None) -> Request:
    """Return a request that has just been completed."""
    latency = time.perf_counter() - origin - start_s
    return Request(start_s=round(start_s, 6), latency_s=round(latency, 6), text_index=index, error=error)


def _in_threads(call: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
