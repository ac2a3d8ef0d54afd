"""Calls of one of this project's clients, in a process that does nothing else.

Options: kind (blocking or asyncio), url, model, tokenizer (the model's tokenizer.json).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from tokenizers import Tokenizer

from qwen3_triton.client import AsyncEmbeddingClient, EmbeddingClient

from ..record import Request, Requests
from ..serving.load import async_closed_loop, closed_loop
from .messages import LoadRequest, LoadResult, Message, TextsRequest, Timed, Turns, TurnsRequest
from .serve import Handle, Options, serve_messages

_PACKAGES = ("grpcio", "numpy", "protobuf", "tokenizers", "tritonclient")
_TIMEOUT_S = 300.0
_PAUSE_S = 0.002
"""Time in which gRPC's threads finish their work for a call."""


class _Calls(Protocol):
    """Calls of one client."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The client's own tokenizer: another one would compete with it for the processor's caches."""

    def embed(self, texts: Sequence[str]) -> None:
        """Embed texts in one call."""

    def turns(self, calls: Sequence[Sequence[str]]) -> Turns:
        """Embed lists of texts, one call each, in turns with tokenizing the same lists."""

    def closed_loop(self, texts: Sequence[str], in_flight: int, requests: int) -> list[Request]:
        """Embed one text a call with a fixed concurrency."""


class _BlockingCalls:
    """Calls of `EmbeddingClient`, from a thread for each request in flight."""

    def __init__(self, options: Options) -> None:
        self._client = EmbeddingClient(
            options["url"], options["model"], tokenizer=options["tokenizer"], timeout_s=_TIMEOUT_S
        )
        self.tokenizer = self._client._current.preparation.model.tokenizer

    def embed(self, texts: Sequence[str]) -> None:
        self._client.embed_documents(texts)

    def turns(self, calls: Sequence[Sequence[str]]) -> Turns:
        cpu_s: list[float] = []
        for others, texts in zip([calls[-1], *calls], calls, strict=False):
            for measured in (partial(_tokenize, self.tokenizer, texts), partial(self.embed, texts)):
                # a call first, so that both find the processor's caches as the server leaves them
                self.embed(others)
                time.sleep(_PAUSE_S)
                started_s = time.process_time()
                measured()
                time.sleep(_PAUSE_S)
                cpu_s.append(time.process_time() - started_s)
        return _turns(cpu_s)

    def closed_loop(self, texts: Sequence[str], in_flight: int, requests: int) -> list[Request]:
        return closed_loop(lambda text: self.embed([text]), texts, in_flight, requests)


class _AsyncCalls:
    """Calls of `AsyncEmbeddingClient`, from a task for each request in flight."""

    def __init__(self, options: Options) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._connect(options))
        connected = self._client._connected
        assert connected is not None
        self.tokenizer = connected.preparation.model.tokenizer

    def embed(self, texts: Sequence[str]) -> None:
        self._runner.run(self._embed(texts))

    def turns(self, calls: Sequence[Sequence[str]]) -> Turns:
        return self._runner.run(self._turns(calls))

    def closed_loop(self, texts: Sequence[str], in_flight: int, requests: int) -> list[Request]:
        return self._runner.run(async_closed_loop(lambda text: self._embed([text]), texts, in_flight, requests))

    @staticmethod
    async def _connect(options: Options) -> AsyncEmbeddingClient:
        client = AsyncEmbeddingClient(
            options["url"], options["model"], tokenizer=options["tokenizer"], timeout_s=_TIMEOUT_S
        )
        return await client.connect()

    async def _embed(self, texts: Sequence[str]) -> None:
        await self._client.embed_documents(texts)

    async def _turns(self, calls: Sequence[Sequence[str]]) -> Turns:
        async def tokenize(texts: Sequence[str]) -> None:
            _tokenize(self.tokenizer, texts)

        cpu_s: list[float] = []
        for others, texts in zip([calls[-1], *calls], calls, strict=False):
            for measured in (tokenize, self._embed):
                await self._embed(others)
                await asyncio.sleep(_PAUSE_S)
                started_s = time.process_time()
                await measured(texts)
                await asyncio.sleep(_PAUSE_S)
                cpu_s.append(time.process_time() - started_s)
        return _turns(cpu_s)


def _tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids, as the clients get them."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]


def _turns(cpu_s: Sequence[float]) -> Turns:
    """Return the times of alternate tokenizations and calls."""
    seconds = [round(each, 6) for each in cpu_s]
    return Turns(calls_s=tuple(seconds[1::2]), tokenizations_s=tuple(seconds[::2]))


def _load(options: Options) -> Handle:
    # as in a process of its own; the variable is inherited from the benchmark's workers
    os.environ.pop("TOKENIZERS_PARALLELISM", None)
    calls: _Calls = _BlockingCalls(options) if options["kind"] == "blocking" else _AsyncCalls(options)
    return partial(_answer, calls)


def _answer(calls: _Calls, message: Message) -> Message:
    match message:
        case TextsRequest():
            wall, cpu = time.perf_counter(), time.process_time()
            if message.tokenize_only:
                _tokenize(calls.tokenizer, message.texts)
            else:
                calls.embed(message.texts)
            return Timed(wall_s=round(time.perf_counter() - wall, 6), cpu_s=round(time.process_time() - cpu, 6))
        case TurnsRequest():
            return calls.turns(message.calls)
        case LoadRequest():
            done = Requests.of(calls.closed_loop(message.texts, message.in_flight, message.requests))
            return LoadResult(
                start_s=done.start_s, latency_s=done.latency_s, text_index=done.text_index, error=done.error
            )
    raise TypeError(f"unexpected message {type(message).__name__}")


if __name__ == "__main__":
    serve_messages(_load, _PACKAGES)
