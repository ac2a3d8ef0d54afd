"""The asynchronous clients with the interface of the synchronous ones, so that one test holds for both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, Generic, Self, TypeVar

from qwen3_triton.client import AsyncEmbeddingClient, AsyncRerankClient, ServerInfo

T = TypeVar("T")
ClientT = TypeVar("ClientT", AsyncEmbeddingClient, AsyncRerankClient)


class _BlockingClient(Generic[ClientT]):
    """Runs an event loop in a thread, and waits for the calls that it makes there."""

    _client: ClientT

    def __init__(self, kind: type[ClientT], *args: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._client = self._run(_create(kind, args, options))
        except BaseException:
            self._stop()
            raise

    @property
    def manifest(self) -> Any:
        return self._client.manifest

    @property
    def tokens_computed(self) -> int:
        return self._client.tokens_computed

    @property
    def _current(self) -> Any:
        return self._client._connected

    def is_ready(self, **options: Any) -> bool:
        return self._run(self._client.is_ready(**options))

    def server_info(self) -> list[ServerInfo]:
        return self._run(self._client.server_info())

    def close(self) -> None:
        self._run(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._stop()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class BlockingEmbeddingClient(_BlockingClient[AsyncEmbeddingClient]):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(AsyncEmbeddingClient, *args, **options)

    def embed_queries(self, *args: Any, **options: Any) -> Any:
        return self._run(self._client.embed_queries(*args, **options))

    def embed_documents(self, *args: Any, **options: Any) -> Any:
        return self._run(self._client.embed_documents(*args, **options))

    def iter_queries(self, *args: Any, **options: Any) -> Generator[Any, None, None]:
        return self._iterate(self._client.iter_queries(*args, **options))

    def iter_documents(self, *args: Any, **options: Any) -> Generator[Any, None, None]:
        return self._iterate(self._client.iter_documents(*args, **options))

    def encode_query(self, *args: Any, **options: Any) -> Any:
        return self._run(self._client.encode_query(*args, **options))

    def encode_document(self, *args: Any, **options: Any) -> Any:
        return self._run(self._client.encode_document(*args, **options))

    def similarity(self, *args: Any) -> Any:
        return self._client.similarity(*args)

    def _iterate(self, arrays: AsyncGenerator[Any, None]) -> Generator[Any, None, None]:
        try:
            while True:
                try:
                    array = self._run(_next(arrays))
                except StopAsyncIteration:
                    return
                yield array
        finally:
            self._run(arrays.aclose())


class BlockingRerankClient(_BlockingClient[AsyncRerankClient]):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(AsyncRerankClient, *args, **options)

    def rerank(self, *args: Any, **options: Any) -> Any:
        return self._run(self._client.rerank(*args, **options))

    def score(self, *args: Any, **options: Any) -> Any:
        return self._run(self._client.score(*args, **options))


async def _create(kind: type[ClientT], args: Any, options: Any) -> ClientT:
    client = kind(*args, **options)
    try:
        return await client.connect()
    except BaseException:
        await client.close()
        raise


async def _next(arrays: AsyncGenerator[T, None]) -> T:
    return await anext(arrays)
