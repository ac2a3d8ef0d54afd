"""What only asynchronous clients do: connect late, share an event loop, and are cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton
from sample_manifest import DIMENSION
from sample_texts import distinct_texts

from qwen3_triton.client import (
    AsyncEmbeddingClient,
    AsyncRerankClient,
    ClientError,
    EmbeddingClient,
    ServerError,
    ServerUnavailableError,
)
from qwen3_triton.client.tokenization import RowTokenizer, TokenRows

TEXTS = distinct_texts(60)


def test_a_client_connects_with_its_first_call(triton: FakeTriton, client: EmbeddingClient) -> None:
    async def embed() -> Any:
        connecting = AsyncEmbeddingClient(triton.url, MODEL)
        with pytest.raises(ClientError, match="has not connected yet"):
            connecting.manifest  # noqa: B018
        vectors = await connecting.embed_documents(TEXTS)
        assert connecting.manifest.dimension == DIMENSION
        await connecting.close()
        await connecting.close()
        with pytest.raises(ServerError, match="is closed"):
            await connecting.embed_documents(TEXTS)
        return vectors

    np.testing.assert_array_equal(asyncio.run(embed()), client.embed_documents(TEXTS))


def test_tasks_share_a_client(triton: FakeTriton, client: EmbeddingClient) -> None:
    async def embed() -> list[Any]:
        async with AsyncEmbeddingClient(triton.url, MODEL) as shared:
            return list(await asyncio.gather(*(shared.embed_documents([text]) for text in TEXTS)))

    np.testing.assert_array_equal(np.concatenate(asyncio.run(embed())), client.embed_documents(TEXTS))


def test_asynchronous_generator_of_texts(triton: FakeTriton, client: EmbeddingClient) -> None:
    async def texts() -> AsyncIterator[str]:
        for text in TEXTS:
            await asyncio.sleep(0)
            yield text

    async def embed() -> list[Any]:
        async with AsyncEmbeddingClient(triton.url, MODEL) as shared:
            return [vectors async for vectors in shared.iter_documents(texts(), window_texts=16)]

    arrays = asyncio.run(embed())
    assert list(map(len, arrays)) == [16, 16, 16, 12]
    np.testing.assert_array_equal(np.concatenate(arrays), client.embed_documents(TEXTS))


def test_an_error_of_the_generator_of_texts_reaches_the_caller(triton: FakeTriton) -> None:
    async def texts() -> AsyncIterator[str]:
        for text in TEXTS[:20]:
            yield text
        raise OSError("disk error")

    async def embed() -> int:
        count = 0
        async with AsyncEmbeddingClient(triton.url, MODEL) as shared:
            with pytest.raises(OSError, match="disk error"):
                async for vectors in shared.iter_documents(texts(), window_texts=8):
                    count += len(vectors)
        return count

    assert asyncio.run(embed()) in (0, 8, 16)


def test_a_cancelled_task_cancels_its_requests(triton: FakeTriton) -> None:
    ended = []

    def fault(number: int, context: Any) -> None:
        while context.is_active():
            asyncio.run(asyncio.sleep(0.01))
        ended.append(number)

    async def embed() -> None:
        async with AsyncEmbeddingClient(triton.url, MODEL, max_rows_per_request=1, max_in_flight=4) as shared:
            triton.fault = fault
            task = asyncio.create_task(shared.embed_documents(TEXTS))
            while len(triton.batches) < 4:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(30):
                while len(ended) < len(triton.batches):
                    await asyncio.sleep(0.01)
            triton.fault = None
            assert (await shared.embed_documents(["a"])).shape == (1, DIMENSION)

    asyncio.run(embed())
    assert len(ended) == 4


def test_a_client_belongs_to_one_event_loop(triton: FakeTriton) -> None:
    clients = []

    async def connect() -> None:
        clients.append(await AsyncEmbeddingClient(triton.url, MODEL).connect())

    asyncio.run(connect())
    with pytest.raises(ClientError, match="belongs to another event loop"):
        asyncio.run(clients[0].embed_documents(["a"]))


def test_unreachable_server() -> None:
    async def connect() -> None:
        async with AsyncRerankClient("127.0.0.1:1", MODEL, timeout_s=5):
            raise AssertionError

    with pytest.raises(ServerUnavailableError, match="no Triton server reachable"):
        asyncio.run(connect())


def test_long_texts_are_tokenized_in_a_thread(triton: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ones are not, because that would take longer than tokenizing them."""
    threads = []
    tokenize = RowTokenizer.tokenize

    def record(*args: Any, **options: Any) -> TokenRows:
        threads.append(threading.current_thread())
        return tokenize(*args, **options)

    async def embed() -> None:
        async with AsyncEmbeddingClient(triton.url, MODEL) as shared:
            await shared.embed_documents(["a"])
            await shared.embed_documents(["a" * 100_000])

    monkeypatch.setattr(RowTokenizer, "tokenize", record)
    asyncio.run(embed())
    assert [thread is threading.main_thread() for thread in threads] == [True, False]
