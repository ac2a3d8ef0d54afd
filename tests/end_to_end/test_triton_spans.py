"""The spans that a real Triton exports are children of the client's."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from served_demo import ServedDemo

from qwen3_triton.client import AsyncEmbeddingClient, EmbeddingClient
from qwen3_triton.server import TritonServer, start_triton
from qwen3_triton.server.command import server_command

MODEL = "embedder"
TIMEOUT_S = 20.0


class Collector(ThreadingHTTPServer):
    """Receives spans by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def wait_for(self, name: str, count: int) -> list[dict[str, Any]]:
        """Return the spans of a name when there are `count` of them."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            found = [span for span in self.spans if span["name"] == name]
            if len(found) >= count or time.monotonic() > deadline_s:
                return found
            time.sleep(0.05)


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


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def test_spans_of_requests_are_children_of_the_call(
    server: TritonServer, collector: Collector, client_spans: InMemorySpanExporter
) -> None:
    async def embed() -> None:
        async with AsyncEmbeddingClient(server.grpc_url, MODEL) as client:
            await client.embed_queries(["a query"])

    with EmbeddingClient(server.grpc_url, MODEL, max_rows_per_request=4) as client:
        client.embed_documents([f"text {number}" for number in range(10)])
    asyncio.run(embed())
    calls = [ids(span) for span in client_spans.get_finished_spans()]
    assert len(set(calls)) == 2
    requests = collector.wait_for("InferRequest", 4)
    assert sorted((span["traceId"], span["parentSpanId"]) for span in requests) == sorted([calls[0]] * 3 + [calls[1]])
