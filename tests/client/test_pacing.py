"""Pacing: the window of tokens in flight against a simulated server, and what a call's deadline leaves behind."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from typing import Any

import grpc
import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton
from sample_manifest import DIMENSION
from sample_texts import distinct_texts

from qwen3_triton.client import EmbeddingClient, RerankClient, RerankManifest
from qwen3_triton.client.errors import InvalidInputError, ServerError, ServerTimeoutError
from qwen3_triton.client.manifest import RecommendedLoad
from qwen3_triton.client.pacing import MIN_REQUEST_TOKENS, TARGET_S, Pace, SentRequest
from qwen3_triton.client.requests import RequestLimits

pytestmark = pytest.mark.usefixtures("both_clients")

LOAD = RecommendedLoad(request_tokens=2_048, tokens_in_flight=65_536)


class SimulatedServer:
    """Computes one request after another at `tokens_per_s`, for one call that always has more to send."""

    def __init__(self, tokens_per_s: float, load: RecommendedLoad | None = LOAD, largest: int = 16_384) -> None:
        self.tokens_per_s = tokens_per_s
        self.now_s = 0.0
        self.pace = Pace(RequestLimits(rows=64, tokens=largest), load, clock=lambda: self.now_s)
        self.turnarounds_s: list[float] = []
        self.sizes: list[int] = []
        self.idle_s = 0.0
        self._queue: deque[SentRequest] = deque()

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self._fill()
            sent = self._queue.popleft()
            self.now_s += sent.tokens / self.tokens_per_s
            self.turnarounds_s.append(self.now_s - sent.sent_s)
            self.pace.replied(sent, self.now_s)

    def _fill(self) -> None:
        outstanding = sum(sent.tokens for sent in self._queue)
        while self.pace.has_room(outstanding):
            sent = self.pace.send(self.pace.limits().tokens, outstanding)
            self.sizes.append(sent.tokens)
            self._queue.append(sent)
            outstanding += sent.tokens


@pytest.mark.parametrize("tokens_per_s", [500, 5_000, 20_000])
def test_the_window_settles_at_what_the_server_computes_in_the_target_time(tokens_per_s: int) -> None:
    server = SimulatedServer(tokens_per_s)
    server.run(60)
    settled = server.turnarounds_s[len(server.turnarounds_s) // 2 :]
    assert TARGET_S / 2 < np.mean(settled) < 1.1 * TARGET_S
    assert max(settled) < 1.6 * TARGET_S


def test_a_fast_server_gets_the_recommended_load_and_never_more() -> None:
    server = SimulatedServer(10_000_000)
    server.run(1)
    assert server.pace.window == LOAD.tokens_in_flight
    assert max(server.sizes) == 16_384


def test_the_window_follows_a_server_that_becomes_slower_and_recovers() -> None:
    server = SimulatedServer(20_000)
    server.run(30)
    fast = server.pace.window
    server.tokens_per_s = 500
    server.run(30)
    assert server.pace.window < fast / 8
    server.tokens_per_s = 20_000
    server.run(60)
    assert server.pace.window > fast / 2


def test_a_server_slower_than_the_smallest_request_still_gets_one() -> None:
    server = SimulatedServer(1)
    server.run(5_000)
    assert server.pace.window == 2 * MIN_REQUEST_TOKENS
    assert server.sizes[-1] == MIN_REQUEST_TOKENS


def test_a_long_text_alone_does_not_collapse_the_window() -> None:
    server = SimulatedServer(5_000)
    server.run(20)
    before = server.pace.window
    sent = server.pace.send(32_000, 0)
    server.pace.replied(sent, server.now_s + 32_000 / 5_000)
    assert server.pace.window >= min(before, 5_000)


def test_requests_in_flight_narrow_the_window_once() -> None:
    now_s = [10.0]
    pace = Pace(RequestLimits(rows=64), LOAD, clock=lambda: now_s[0])
    now_s[0] = 11.0
    requests = [pace.send(256, 0) for _ in range(4)]
    now_s[0] = 12.0
    for request in requests:
        pace.failed(request)
    assert pace.window == LOAD.request_tokens // 2


def test_one_request_at_a_time_is_enough_to_learn() -> None:
    now_s = [0.0]
    pace = Pace(RequestLimits(rows=64), LOAD, clock=lambda: now_s[0])
    for _ in range(50):
        # rows of 700 tokens fill a request of 1,024 tokens to two thirds
        sent = pace.send(pace.limits().tokens // 700 * 700, 0)
        now_s[0] += sent.tokens / 20_000
        pace.replied(sent, now_s[0])
    assert pace.window > 8 * LOAD.request_tokens
    assert pace.predict_s(20_000, 0) == pytest.approx(1)


def test_calls_of_single_texts_do_not_widen_the_window() -> None:
    pace = Pace(RequestLimits(rows=64), LOAD)
    for _ in range(1_000):
        pace.replied(pace.send(20, 0), pace.now_s())
    assert pace.window == LOAD.request_tokens


def test_single_texts_say_nothing_about_the_speed_of_a_long_list(triton: FakeTriton) -> None:
    triton.fault = lambda *_: time.sleep(0.1)
    with EmbeddingClient(triton.url, MODEL, call_timeout_s=20) as client:
        for _ in range(3):
            client.embed_documents(["a"])
        # at the speed of the single texts, 20 tokens/s, this would take minutes
        assert client.embed_documents(["a" * 50] * 100).shape == (100, DIMENSION)


def test_a_late_single_text_halves_the_window() -> None:
    now_s = [0.0]
    pace = Pace(RequestLimits(rows=64), LOAD, clock=lambda: now_s[0])
    sent = pace.send(10, 0)
    pace.replied(sent, 3.0)
    assert pace.window == LOAD.request_tokens // 2
    assert pace.predict_s(1_000, 0) == 0


@pytest.mark.slow
def test_the_clients_requests_become_smaller_on_a_slow_server(triton: FakeTriton) -> None:
    # one computing thread that takes 2 ms for each token
    computing = threading.Lock()

    def fault(number: int, _context: Any) -> None:
        size = triton.batches[number].size
        with computing:
            time.sleep(size * 0.002)

    triton.fault = fault
    triton.max_batch_size = 1_000
    with EmbeddingClient(triton.url, MODEL) as client:
        client.embed_documents(distinct_texts(600, length=9))
    assert max(batch.size for batch in triton.batches[-4:]) < triton.batches[0].size
    assert sum(len(batch) for batch in triton.batches) == 600


def test_a_call_that_cannot_finish_in_time_keeps_its_results_and_leaves_no_work(triton: FakeTriton) -> None:
    triton.fault = lambda *_: time.sleep(0.05)
    texts = distinct_texts(200, length=9)
    with EmbeddingClient(triton.url, MODEL, max_rows_per_request=1, max_in_flight=1) as client:
        whole = EmbeddingClient(triton.url, MODEL).embed_documents(texts)
        triton.batches.clear()
        with (
            EmbeddingClient(triton.url, MODEL, max_rows_per_request=1, max_in_flight=1, call_timeout_s=1.0) as limited,
            pytest.raises(ServerTimeoutError, match="cannot finish within its 1 s") as caught,
        ):
            limited.embed_documents(texts)
        assert client.embed_documents(["short"]).shape == (1, DIMENSION)
    partial = caught.value.partial
    assert partial is not None
    assert 0 < partial.done.sum() < len(texts)
    np.testing.assert_array_equal(partial.results[partial.done], whole[partial.done])
    assert np.isnan(partial.results[~partial.done]).all()
    # every request that was sent was answered, but for one that the clock may have caught
    assert len(triton.batches) - 1 - partial.done.sum() <= 1


@pytest.mark.parametrize("number", [0, 3])
def test_an_error_carries_the_vectors_that_arrived(triton: FakeTriton, number: int) -> None:
    def fault(index: int, context: Any) -> None:
        if index == number:
            context.abort(grpc.StatusCode.INTERNAL, "broken")

    triton.fault = fault
    with (
        EmbeddingClient(triton.url, MODEL, max_rows_per_request=2, max_in_flight=1) as client,
        pytest.raises(ServerError, match="broken") as caught,
    ):
        client.embed_documents(distinct_texts(20))
    partial = caught.value.partial
    assert partial is not None
    assert partial.done.sum() == 2 * number
    assert np.isfinite(partial.results).all(axis=1).tolist() == partial.done.tolist()


def test_an_error_carries_the_scores_that_arrived(rerank_manifest: RerankManifest) -> None:
    def fault(index: int, context: Any) -> None:
        if index == 2:
            context.abort(grpc.StatusCode.INTERNAL, "broken")

    with FakeTriton(rerank_manifest.to_json(), None) as triton:
        triton.fault = fault
        with (
            RerankClient(triton.url, MODEL, max_rows_per_request=1, max_in_flight=1) as client,
            pytest.raises(ServerError, match="broken") as caught,
        ):
            client.score([("q", text) for text in distinct_texts(5)])
    partial = caught.value.partial
    assert partial is not None
    assert partial.done.sum() == np.isfinite(partial.results).sum() == 2


@pytest.mark.parametrize("name", ["timeout_s", "call_timeout_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan"), 1e300])
def test_invalid_timeouts(triton: FakeTriton, name: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name} is {re.escape(str(value))};"):
        EmbeddingClient(triton.url, MODEL, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("grpc://host:8001", "without a scheme"),
        ("", "give HOST:PORT"),
        ("host:99999", "from 1 to 65535"),
        ("host:0", "from 1 to 65535"),
        ("host:-1", "from 1 to 65535"),
    ],
)
def test_invalid_urls(url: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        EmbeddingClient(url, MODEL)
