"""A server is killed and started again in the middle of a long call, which gets every result all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3_triton.client import AsyncEmbeddingClient, EmbeddingClient, Precision
from qwen3_triton.export import ExportOptions, SourceReference, Verification, WitnessChoice, export_model
from qwen3_triton.server import ServerOptions, TritonServer, start_triton

MODEL = "demo"
TEXTS = [f"text {number:05}" for number in range(100_000)]
RETRY_TIMEOUT_S = 180
WAIT_S = 300


class Restarts:
    """A server that can be killed and started again with the same addresses."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._server = start_triton(repository)
        self.url = self._server.grpc_url

    def kill_and_start(self, has_begun: Callable[[], bool]) -> None:
        """Kill the server when the condition is true, and start another one two seconds later."""
        deadline_s = time.monotonic() + WAIT_S
        while not has_begun():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        addresses = self._server.addresses
        os.kill(_child(self._server), signal.SIGKILL)
        self._server.stop()
        time.sleep(2)
        ports = ServerOptions(
            grpc_port=addresses.grpc_port, http_port=addresses.http_port, metrics_port=addresses.metrics_port
        )
        self._server = start_triton(self._repository, ports)

    def stop(self) -> None:
        self._server.stop()


def _child(server: TritonServer) -> int:
    """Return the process id of `tritonserver`."""
    [child] = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return int(child)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[Restarts]:
    repository = tmp_path_factory.mktemp("killed") / "models"
    export_model(
        ExportOptions(
            model=SourceReference(str(project_root / "examples" / "demo" / "checkpoint")),
            repository=repository,
            name=MODEL,
            # its results are bit-identical in any batch
            precision=Precision.INT8,
            max_tokens=64,
            verify=Verification.NONE,
            witness=WitnessChoice.NONE,
        )
    )
    running = Restarts(repository)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def whole(server: Restarts) -> NDArray[np.float32]:
    with EmbeddingClient(server.url, MODEL, timeout_s=WAIT_S) as client:
        return client.embed_documents(TEXTS)


@pytest.mark.slow
def test_synchronous_client(server: Restarts, whole: NDArray[np.float32]) -> None:
    with (
        EmbeddingClient(server.url, MODEL, timeout_s=WAIT_S, retry_timeout_s=RETRY_TIMEOUT_S) as client,
        ThreadPoolExecutor(1) as executor,
    ):
        killing = executor.submit(server.kill_and_start, lambda: client.tokens_computed > 100_000)
        vectors = client.embed_documents(TEXTS)
        killing.result(WAIT_S)
    np.testing.assert_array_equal(vectors, whole)


@pytest.mark.slow
def test_asynchronous_client(server: Restarts, whole: NDArray[np.float32]) -> None:
    async def embed() -> NDArray[np.float32]:
        out = np.empty_like(whole)
        async with AsyncEmbeddingClient(server.url, MODEL, timeout_s=WAIT_S, retry_timeout_s=RETRY_TIMEOUT_S) as client:
            killing = asyncio.create_task(
                asyncio.to_thread(server.kill_and_start, lambda: client.tokens_computed > 100_000)
            )
            vectors = await client.embed_documents((text for text in TEXTS), out=out)
            await killing
        return vectors

    np.testing.assert_array_equal(asyncio.run(embed()), whole)
