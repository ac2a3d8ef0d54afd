"""OpenTelemetry spans of calls, collected in memory, and the trace context in the metadata of requests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import Any

import grpc
import pytest
from fake_triton import MODEL, FakeTriton
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from sample_manifest import DIMENSION
from sample_texts import distinct_texts

from qwen3_triton.client import (
    AsyncEmbeddingClient,
    EmbeddingClient,
    EmbeddingManifest,
    InvalidInputError,
    RerankClient,
    ServerOverloadedError,
)

pytestmark = pytest.mark.usefixtures("both_clients")

TEXTS = distinct_texts(40)
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Spans:
    """A provider of tracers, and the spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def one(self) -> ReadableSpan:
        [span] = self.ended
        self._exporter.clear()
        return span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    # the global provider can be set only once in a process
    found = Spans()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: found.provider)
    return found


def traceparent(span: Any) -> str:
    found = span.get_span_context()
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def test_a_call_is_one_span(triton: FakeTriton, spans: Spans) -> None:
    with EmbeddingClient(triton.url, MODEL) as client:
        client.embed_documents(TEXTS)
        tokens = client.tokens_computed
    span = spans.one()
    assert (span.name, span.kind) == ("embeddings demo", trace.SpanKind.CLIENT)
    assert span.attributes == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "qwen3_triton",
        "gen_ai.request.model": "demo",
        "gen_ai.usage.input_tokens": tokens,
        "server.address": "127.0.0.1",
        "server.port": int(triton.url.rpartition(":")[2]),
        "qwen3_triton.text.count": len(TEXTS),
        "qwen3_triton.request.count": len(triton.batches),
        "qwen3_triton.retry.count": 0,
    }
    assert len(triton.batches) > 1
    assert span.status.status_code is trace.StatusCode.UNSET
    assert span.instrumentation_scope is not None and span.instrumentation_scope.name == "qwen3_triton"


def test_operations(triton: FakeTriton, reranking_triton: FakeTriton, spans: Spans) -> None:
    with RerankClient(reranking_triton.url, MODEL) as client:
        client.rerank("query", TEXTS)
        span = spans.one()
        assert span.name == "rerank demo"
        assert span.attributes is not None and span.attributes["gen_ai.operation.name"] == "rerank"
        assert span.attributes["qwen3_triton.text.count"] == len(TEXTS)
        client.score([("query", "document")])
        assert spans.one().name == "rerank demo"
    with EmbeddingClient(triton.url, MODEL) as embedder:
        embedder.embed_queries([])
        attributes = spans.one().attributes
        assert attributes is not None and attributes["qwen3_triton.request.count"] == 0


def test_requests_carry_the_context_of_the_span(triton: FakeTriton, spans: Spans) -> None:
    with EmbeddingClient(triton.url, MODEL, token="secret") as client:
        client.embed_documents(TEXTS)
    expected = traceparent(spans.one())
    assert {metadata["traceparent"] for metadata in triton.metadata} == {expected}
    assert {metadata["authorization"] for metadata in triton.metadata} == {"Bearer secret"}


def test_the_span_is_a_child_of_the_current_one(triton: FakeTriton, spans: Spans) -> None:
    tracer = spans.provider.get_tracer("application")
    with EmbeddingClient(triton.url, MODEL) as client, tracer.start_as_current_span("handler") as parent:
        token = context.attach(baggage.set_baggage("tenant", "a"))
        client.embed_documents(["a"])
        context.detach(token)
        assert trace.get_current_span() is parent
    assert triton.metadata[0]["baggage"] == "tenant=a"
    [child, _] = spans.ended
    assert child.parent == parent.get_span_context()


def test_the_callers_own_context_is_kept(triton: FakeTriton, spans: Spans) -> None:
    with EmbeddingClient(triton.url, MODEL, metadata={"traceparent": GIVEN}) as client:
        client.embed_documents(["a"])
    assert triton.metadata[0]["traceparent"] == GIVEN
    assert traceparent(spans.one()) != GIVEN


def test_the_span_is_current_while_a_request_starts(triton: FakeTriton, spans: Spans) -> None:
    """So that the spans of gRPC's instrumentation are its children."""
    current: list[Any] = []

    def metadata() -> dict[str, str]:
        current.append(trace.get_current_span())
        return {}

    with EmbeddingClient(triton.url, MODEL, metadata=metadata) as client:
        current.clear()
        client.embed_documents(TEXTS)
    assert {traceparent(span) for span in current} == {traceparent(spans.one())}


@pytest.mark.parametrize("is_closed_early", [False, True])
def test_an_iterator_is_one_span(triton: FakeTriton, spans: Spans, is_closed_early: bool) -> None:
    with EmbeddingClient(triton.url, MODEL) as client:
        arrays = client.iter_documents(iter(TEXTS), window_texts=8)
        assert spans.ended == []
        next(arrays)
        assert not trace.get_current_span().is_recording()
        if is_closed_early:
            arrays.close()
        else:
            list(arrays)
    span = spans.one()
    assert span.attributes is not None
    assert span.status.status_code is trace.StatusCode.UNSET
    assert "error.type" not in span.attributes
    assert span.attributes["qwen3_triton.text.count"] == len(TEXTS) or is_closed_early
    assert {metadata["traceparent"] for metadata in triton.metadata} == {traceparent(span)}


def test_retries_are_counted(triton: FakeTriton, spans: Spans) -> None:
    def fault(number: int, context: Any) -> None:
        if number < 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Server is stopping")

    triton.fault = fault
    with EmbeddingClient(triton.url, MODEL) as client:
        client.embed_documents(["a"])
    attributes = spans.one().attributes
    assert attributes is not None
    assert attributes["qwen3_triton.request.count"] == 3
    assert attributes["qwen3_triton.retry.count"] == 2


def test_halves_are_counted(triton: FakeTriton, spans: Spans) -> None:
    def fault(number: int, context: Any) -> None:
        if not number:
            context.abort(grpc.StatusCode.INTERNAL, "out of memory")

    triton.fault = fault
    with EmbeddingClient(triton.url, MODEL) as client:
        client.embed_documents(["a", "b"])
    attributes = spans.one().attributes
    assert attributes is not None
    assert attributes["qwen3_triton.request.count"] == 3
    assert attributes["qwen3_triton.retry.count"] == 1


def test_errors_have_a_type_and_no_message(triton: FakeTriton, spans: Spans) -> None:
    with EmbeddingClient(triton.url, MODEL, retry_timeout_s=0, metadata={"tenant": "hidden"}) as client:
        with pytest.raises(InvalidInputError, match="secret text"):
            client.embed_documents(["secret text #"])
        span = spans.one()
        assert span.attributes is not None and span.attributes["error.type"] == "InvalidInputError"
        assert span.status.status_code is trace.StatusCode.ERROR
        assert span.status.description is None
        assert list(span.events) == []
        assert not [word for word in ("secret", "hidden", "tenant") if word in span.to_json()]
        with pytest.raises(InvalidInputError, match="dim is 3"):
            client.embed_documents(["a"], dim=3)
        assert spans.one().status.status_code is trace.StatusCode.ERROR
        triton.fault = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        for call in (client.embed_documents, lambda texts: list(client.iter_documents(texts))):
            with pytest.raises(ServerOverloadedError):
                call(["a"])
            span = spans.one()
            assert span.attributes is not None and span.attributes["error.type"] == "ServerOverloadedError"


def test_the_version_is_that_of_the_results(triton: FakeTriton, manifest: EmbeddingManifest, spans: Spans) -> None:
    triton.deploy(manifest, 1)
    with EmbeddingClient(triton.url, MODEL) as client:
        triton.deploy(manifest, 2)
        client.embed_documents(["a"])
    attributes = spans.one().attributes
    assert attributes is not None and attributes["qwen3_triton.model.version"] == "2"


def test_several_servers_have_no_single_address(triton: FakeTriton, manifest: EmbeddingManifest, spans: Spans) -> None:
    with (
        FakeTriton(manifest.to_json(), DIMENSION) as other,
        EmbeddingClient([triton.url, other.url], MODEL) as client,
    ):
        client.embed_documents(["a"])
    attributes = spans.one().attributes
    assert attributes is not None and not attributes.keys() & {"server.address", "server.port"}


def test_a_cancelled_task_is_an_error(triton: FakeTriton, spans: Spans) -> None:
    async def cancel() -> None:
        async with AsyncEmbeddingClient(triton.url, MODEL) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.embed_documents(["a"])

    released = threading.Event()
    triton.fault = lambda *_: released.wait(10)
    asyncio.run(cancel())
    released.set()
    span = spans.one()
    assert span.attributes is not None and span.attributes["error.type"] == "CancelledError"


def test_a_span_that_is_not_sampled_is_not_propagated(triton: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton would record its own spans for it."""
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: TracerProvider(sampler=ALWAYS_OFF))
    with EmbeddingClient(triton.url, MODEL) as client:
        client.embed_documents(["a"])
    assert "traceparent" not in triton.metadata[0]


def test_without_an_sdk_nothing_is_sent(triton: FakeTriton) -> None:
    with EmbeddingClient(triton.url, MODEL) as client:
        client.embed_documents(["a"])
    assert "traceparent" not in triton.metadata[0]


@pytest.mark.parametrize("is_installed", [False, True])
def test_the_package_is_optional(triton: FakeTriton, is_installed: bool) -> None:
    code = f"""
import sys
if not {is_installed}:
    sys.modules["opentelemetry"] = None
from qwen3_triton.client import EmbeddingClient
print(any(name.startswith("opentelemetry.") for name in sys.modules))
with EmbeddingClient({triton.url!r}, {MODEL!r}) as client:
    print(client.embed_documents(["a"]).shape)
print(any(name.startswith("opentelemetry.") for name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", f"(1, {DIMENSION})", str(is_installed)]
