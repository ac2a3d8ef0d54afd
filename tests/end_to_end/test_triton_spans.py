"""The spans that a real Triton exports are children of the client's."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from served_demo import ServedDemo

from qwen3_triton.client import AsyncEmbeddingClient, EmbeddingClient
from qwen3_triton.server import TritonServer, start_triton
from qwen3_triton.server.command import server_command

pytestmark = pytest.mark.slow

MODEL = "embedder"
CALLS = 5
TIMEOUT_S = 20.0


class Collector(ThreadingHTTPServer):
    """Receives spans by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def parents(self) -> set[tuple[str, str]]:
        """Return trace and parent of the requests that Triton has recorded."""
        requests = [span for span in self.spans if span["name"] == "InferRequest"]
        return {(span["traceId"], span["parentSpanId"]) for span in requests}


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for resource in body["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                self.server.spans += scope["spans"]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(
    served_demo: ServedDemo, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("traced") / "model_repository"
    shutil.copytree(served_demo.repository / MODEL, repository / MODEL)
    settings = ("mode=opentelemetry", "level=TIMESTAMPS", "rate=0", "count=-1")
    exporter = (f"opentelemetry,url={collector.url}", "opentelemetry,bsp_schedule_delay=100")
    options = [f"--trace-config={setting}" for setting in (*settings, *exporter)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "qwen3_triton.server.triton.server_command", lambda *arguments: server_command(*arguments) + options
        )
        running = start_triton(repository)
    with running:
        yield running


@pytest.fixture
def client_spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


def own_ids(exporter: InMemorySpanExporter) -> set[tuple[str, str]]:
    """Return trace and id of the client's spans."""
    contexts = [span.context for span in exporter.get_finished_spans() if span.context is not None]
    return {(f"{context.trace_id:032x}", f"{context.span_id:016x}") for context in contexts}


def synchronous_calls(url: str) -> None:
    with EmbeddingClient(url, MODEL) as client:
        for number in range(CALLS):
            client.embed_documents([f"text {number}"])


def asynchronous_calls(url: str) -> None:
    async def embed() -> None:
        async with AsyncEmbeddingClient(url, MODEL) as client:
            for number in range(CALLS):
                await client.embed_queries([f"text {number}"])

    asyncio.run(embed())


@pytest.mark.parametrize("make_calls", [synchronous_calls, asynchronous_calls])
def test_spans_of_requests_are_children_of_the_call(
    server: TritonServer,
    collector: Collector,
    client_spans: InMemorySpanExporter,
    make_calls: Callable[[str], None],
) -> None:
    make_calls(server.grpc_url)
    calls = own_ids(client_spans)
    assert len(calls) == CALLS
    deadline_s = time.monotonic() + TIMEOUT_S
    # this Triton loses some of its spans, so that not every call has one
    while not collector.parents() & calls and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert collector.parents() & calls
    assert all(parent in calls for parent in collector.parents() if parent[0] in {trace_id for trace_id, _ in calls})
