"""Whether a call can be computed now, and what the servers say of themselves."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from fake_triton import MODEL, FakeTriton
from sample_manifest import DIMENSION

from qwen3_triton.client import (
    AsyncEmbeddingClient,
    EmbeddingClient,
    EmbeddingManifest,
    RerankClient,
    ServerError,
    ServerInfo,
    ServerUnavailableError,
)

pytestmark = pytest.mark.usefixtures("both_clients")


@pytest.fixture
def stopped(manifest: EmbeddingManifest) -> FakeTriton:
    with FakeTriton(manifest.to_json(), DIMENSION) as server:
        return server


@pytest.fixture
def other(manifest: EmbeddingManifest) -> Iterator[FakeTriton]:
    with FakeTriton(manifest.to_json(), DIMENSION) as server:
        yield server


def test_ready(triton: FakeTriton, reranking_triton: FakeTriton) -> None:
    with EmbeddingClient(triton.url, MODEL) as embedder, RerankClient(reranking_triton.url, MODEL) as reranker:
        assert embedder.is_ready()
        assert reranker.is_ready()


def test_one_server_of_several_is_enough(
    triton: FakeTriton, other: FakeTriton, stopped: FakeTriton, manifest: EmbeddingManifest
) -> None:
    for server in (triton, other):
        server.deploy(manifest, 1)
    with EmbeddingClient([stopped.url, other.url, triton.url], MODEL) as client:
        assert client.is_ready()
        other.deploy(manifest, 2)
        assert client.is_ready()
        assert client.manifest.model_version == 1


def test_an_unreachable_server_is_not_ready(triton: FakeTriton) -> None:
    with EmbeddingClient(triton.url, MODEL) as client:
        triton.__exit__()
        assert not client.is_ready()


def test_a_server_that_does_not_reply_is_not_ready(triton: FakeTriton) -> None:
    with EmbeddingClient(triton.url, MODEL) as client:
        released = threading.Event()
        triton.on_ready = lambda _: released.wait(10)
        assert not client.is_ready(timeout_s=0.1)
        released.set()
        assert client.is_ready()


def test_a_model_that_is_not_loaded_is_not_ready(triton: FakeTriton) -> None:
    with EmbeddingClient(triton.url, MODEL) as client:
        triton.is_loaded = False
        assert not client.is_ready()
        triton.is_loaded = True
        assert client.is_ready()


def test_a_redeploy_is_followed(triton: FakeTriton, manifest: EmbeddingManifest) -> None:
    triton.deploy(manifest, 1)
    with EmbeddingClient(triton.url, MODEL) as client:
        triton.deploy(manifest, 2)
        assert client.is_ready()
        assert client.manifest.model_version == 2


def test_a_client_that_refuses_new_versions_is_not_ready(triton: FakeTriton, manifest: EmbeddingManifest) -> None:
    triton.deploy(manifest, 1)
    with EmbeddingClient(triton.url, MODEL, on_new_version="refuse") as client:
        triton.deploy(manifest, 2)
        assert not client.is_ready()


def test_a_rejected_token_is_an_error(triton: FakeTriton) -> None:
    with EmbeddingClient(triton.url, MODEL) as client:
        triton.on_ready = lambda context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")
        with pytest.raises(ServerError, match="UNAUTHENTICATED"):
            client.is_ready()


def test_a_closed_client_is_an_error(triton: FakeTriton) -> None:
    with EmbeddingClient(triton.url, MODEL) as client:
        client.close()
        with pytest.raises(ServerError, match="closed"):
            client.is_ready()
        with pytest.raises(ServerError, match="closed"):
            client.server_info()


def test_server_info(triton: FakeTriton, stopped: FakeTriton) -> None:
    with EmbeddingClient([stopped.url, triton.url], MODEL) as client:
        [info] = client.server_info()
        assert info == ServerInfo(url=triton.url, name="triton", version="2.63.0", extensions=("sequence", "logging"))
        with pytest.raises(dataclasses.FrozenInstanceError):
            info.name = "other"  # type: ignore[misc]
        triton.__exit__()
        with pytest.raises(ServerUnavailableError, match=stopped.url):
            client.server_info()


def test_an_asynchronous_client_connects_when_the_model_is_ready(
    manifest: EmbeddingManifest, stopped: FakeTriton
) -> None:
    async def check(url: str) -> Any:
        client = AsyncEmbeddingClient(url, MODEL)
        try:
            return [await client.is_ready(), client._connected is not None]
        finally:
            await client.close()

    with FakeTriton(manifest.to_json(), DIMENSION) as server:
        assert asyncio.run(check(server.url)) == [True, True]
        server.is_loaded = False
        assert asyncio.run(check(server.url)) == [False, False]
    assert asyncio.run(check(stopped.url)) == [False, False]
