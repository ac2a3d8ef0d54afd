"""OpenTelemetry spans of a client's calls. Without the package opentelemetry-api, nothing is imported or recorded.

A call is one client span, whatever the number of its requests. Name and attributes are those of OpenTelemetry's
conventions for generative AI, which have no name for reranking yet; what else is known of a call has names that begin
with `qwen3_triton.`. Requests carry the context of a sampled span, so that Triton's own spans become its children.

A span has no texts, tokens, metadata or messages of exceptions, which may quote a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .. import __version__
from .call_counts import CallCounts

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

_SCOPE = "qwen3_triton"
_SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"


class Operation(StrEnum):
    """`gen_ai.operation.name` of a call."""

    EMBEDDINGS = "embeddings"
    RERANK = "rerank"


class CallSpan:
    """The span of one call, which ends with its `with` block. Does nothing if there is no span.

    It is the current span only within `active`, because an iterator is suspended in the middle of its call.
    """

    def __init__(
        self, span: Span | None = None, context: Context | None = None, headers: dict[str, str] | None = None
    ) -> None:
        """Create the span of a call.

        Args:
            span: OpenTelemetry's span.
            context: The context in which it is the current span.
            headers: What propagates that context.
        """
        self.counts = CallCounts()
        self._span = span
        self._context = context
        self._headers = headers or {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the current span, so that it is the parent of what other instrumentation records."""
        if self._context is None:
            yield
            return
        from opentelemetry.context import attach, detach

        token = attach(self._context)
        try:
            yield
        finally:
            detach(token)

    def propagate(self, metadata: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return `metadata` with the context of the span, unless the caller's metadata already has one."""
        if any(key in self._headers for key, _ in metadata):
            return metadata
        return [*metadata, *self._headers.items()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is None:
            return
        if self._span.is_recording():
            # an iterator that is closed early has not failed
            _describe_end(self._span, self.counts, None if isinstance(error, GeneratorExit) else kind)
        self._span.end()


class CallTracer:
    """Starts the spans of a client's calls."""

    def __init__(self, operation: Operation, model: str, urls: Sequence[str]) -> None:
        """Create a tracer.

        Args:
            operation: What the calls do.
            model: Name of the model.
            urls: `HOST:PORT` of the servers; a span names the server only if it is the only one.
        """
        self._name = f"{operation} {model}"
        self._attributes: dict[str, str | int] = {
            "gen_ai.operation.name": operation.value,
            "gen_ai.provider.name": _SCOPE,
            "gen_ai.request.model": model,
        }
        if len(urls) == 1:
            host, _, port = urls[0].rpartition(":")
            if port.isdecimal():
                self._attributes |= {"server.address": host.strip("[]"), "server.port": int(port)}
        self._is_enabled = _has_opentelemetry()

    def start(self) -> CallSpan:
        """Return the span of a call that begins now."""
        if not self._is_enabled:
            return CallSpan()
        from opentelemetry import propagate, trace

        # a provider may be configured after the client was created
        tracer = trace.get_tracer(_SCOPE, __version__, schema_url=_SCHEMA_URL)
        span = tracer.start_span(self._name, kind=trace.SpanKind.CLIENT, attributes=self._attributes)
        context = trace.set_span_in_context(span)
        headers: dict[str, str] = {}
        # Triton records every request that has a context, also if it says that the trace is not sampled
        if span.get_span_context().trace_flags.sampled:
            propagate.inject(headers, context)
        # gRPC rejects capital letters, which some propagators use
        return CallSpan(span, context, {key.lower(): value for key, value in headers.items()})


@cache
def _has_opentelemetry() -> bool:
    try:
        from opentelemetry import context, propagate, trace  # noqa: F401
    except ImportError:
        return False
    return True


def _describe_end(span: Span, counts: CallCounts, error: type[BaseException] | None) -> None:
    span.set_attributes(
        {
            "gen_ai.usage.input_tokens": counts.tokens,
            "qwen3_triton.text.count": counts.texts,
            "qwen3_triton.request.count": counts.requests,
            "qwen3_triton.retry.count": counts.retries,
        }
    )
    if counts.version:
        span.set_attribute("qwen3_triton.model.version", counts.version)
    if error is not None:
        from opentelemetry.trace import StatusCode

        span.set_attribute("error.type", error.__qualname__)
        span.set_status(StatusCode.ERROR)
