"""A process with one of this project's clients."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from ..contenders.worker import WorkerProcess
from ..record import Requests
from ..workers.messages import LoadRequest, LoadResult, TextsRequest, Timed, Turns, TurnsRequest
from .results import CpuTurns
from .served import Served, thread_model


class ClientKind(StrEnum):
    """The embedding clients."""

    ASYNCIO = "asyncio"
    BLOCKING = "blocking"

    @property
    def label(self) -> str:
        """Name of the class."""
        return "AsyncEmbeddingClient" if self is ClientKind.ASYNCIO else "EmbeddingClient"

    @property
    def callers(self) -> str:
        """What makes its calls in a closed loop."""
        return "tasks" if self is ClientKind.ASYNCIO else "threads"


class ClientProcess:
    """A client of one model; methods raise ContenderUnavailableError if a call fails."""

    def __init__(self, kind: ClientKind, served: Served, threads: int) -> None:
        """Start the process and connect its client.

        Args:
            kind: the client.
            served: the server.
            threads: threads of the model that it uses.

        Raises:
            ContenderUnavailableError: if it does not start.
        """
        options = {
            "kind": kind.value,
            "url": served.grpc_url,
            "model": thread_model(threads),
            "tokenizer": str(served.folder(threads).tokenizer),
        }
        self._process = WorkerProcess("client", options, Path(sys.executable))

    def stop(self) -> None:
        """Stop the process. Idempotent."""
        self._process.stop()

    def tokenize(self, texts: Sequence[str]) -> Timed:
        """Tokenize texts, without embedding them."""
        return self._process.exchange(TextsRequest(texts=texts, tokenize_only=True), Timed)

    def embed(self, texts: Sequence[str]) -> Timed:
        """Embed texts in one call."""
        return self._process.exchange(TextsRequest(texts=texts), Timed)

    def turns(self, calls: Sequence[Sequence[str]]) -> CpuTurns:
        """Embed lists of texts, one call each, in turns with tokenizing them; each turn has two calls more."""
        done = self._process.exchange(TurnsRequest(calls=calls), Turns)
        return CpuTurns(calls_s=done.calls_s, tokenizations_s=done.tokenizations_s)

    def closed_loop(self, texts: Sequence[str], in_flight: int, requests: int) -> Requests:
        """Embed one text a call with a fixed concurrency."""
        done = self._process.exchange(LoadRequest(texts=texts, in_flight=in_flight, requests=requests), LoadResult)
        return Requests(start_s=done.start_s, latency_s=done.latency_s, text_index=done.text_index, error=done.error)
