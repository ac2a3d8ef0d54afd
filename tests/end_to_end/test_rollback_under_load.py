"""Versions are exchanged under load, on a Triton that polls its repository and on one that loads on request."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from qwen3_triton.client import EmbeddingClient, ModelChangedError
from qwen3_triton.client.manifest import ModelFolder
from qwen3_triton.export import (
    AdapterReference,
    ExportOptions,
    SourceReference,
    WitnessChoice,
    export_model,
    switch_version,
)
from qwen3_triton.server import ModelControl, ServerOptions, TritonServer, start_triton

MODEL = "demo"
QUERIES = ["sort a list", "read a file", "close the socket", "parse JSON", "add two numbers", "naïve 日本語"]
WAIT_S = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> ModelFolder:
    """The demo model with and without its adapter, and with different prompts; version 2 is in use."""
    demo = project_root / "examples" / "demo"
    adapter = AdapterReference(SourceReference(str(demo / "adapter")))
    repository = tmp_path_factory.mktemp("redeploy") / "models"
    for adapters, template in (((adapter,), "first {text}"), ((), "second {text}")):
        result = export_model(
            ExportOptions(
                model=SourceReference(str(demo / "checkpoint")),
                adapters=adapters,
                repository=repository,
                name=MODEL,
                query_template=template,
                max_tokens=64,
                overwrite=True,
                witness=WitnessChoice.NONE,
            )
        )
    return result.folder


@dataclass(frozen=True)
class Deployment:
    """A server and the folder of its model."""

    server: TritonServer
    folder: ModelFolder
    control: ModelControl

    def put(self, version: int) -> None:
        """Put a version into use, and wait until the server serves it and no other."""
        switch_version(self.folder, version)
        with grpc.insecure_channel(self.server.grpc_url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            if self.control is ModelControl.EXPLICIT:
                stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=MODEL), timeout=WAIT_S)
            waiting = threading.Event()
            for _ in range(10 * WAIT_S):
                if self._is_ready(stub, version) and not self._is_ready(stub, 3 - version):
                    return
                waiting.wait(0.1)
        raise AssertionError(f"version {version} was not loaded")

    @staticmethod
    def _is_ready(stub: Any, version: int) -> bool:
        request = service_pb2.ModelReadyRequest(name=MODEL, version=str(version))
        return bool(stub.ModelReady(request, timeout=WAIT_S).ready)


@pytest.fixture(params=[ModelControl.POLL, ModelControl.EXPLICIT])
def deployment(folder: ModelFolder, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    options = ServerOptions(model_control=request.param, poll_interval_s=1)
    with start_triton(folder.path.parent, options) as server:
        yield Deployment(server, folder, request.param)


def test_rollbacks_under_load(deployment: Deployment) -> None:
    """Every call gets the vectors of one version with its own prompts; none fails."""
    url = deployment.server.grpc_url
    truth = {}
    for version in (2, 1):
        deployment.put(version)
        with EmbeddingClient(url, MODEL, repository=deployment.folder.path.parent) as client:
            assert client.manifest.model_version == version
            truth[version] = client.embed_queries(QUERIES)
    assert np.abs(truth[1] - truth[2]).max() > 0.01

    done = threading.Event()
    found: list[NDArray[np.float32]] = []

    def load(client: EmbeddingClient, queries: list[str]) -> None:
        while not done.is_set():
            found.append(client.embed_queries(queries))

    with (
        EmbeddingClient(url, MODEL, repository=deployment.folder.path.parent, max_rows_per_request=2) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        calls = [pool.submit(load, client, QUERIES[:count]) for count in (1, 4, 6)]
        try:
            for version in (2, 1, 2):
                deployment.put(version)
        finally:
            done.set()
        for call in calls:
            call.result()
        np.testing.assert_allclose(client.embed_queries(QUERIES), truth[2], atol=1e-5)
        assert client.manifest.model_version == 2
    versions: Counter[int] = Counter()
    for vectors in found:
        equal = [version for version in (1, 2) if np.allclose(vectors, truth[version][: len(vectors)], atol=1e-5)]
        assert len(equal) == 1
        versions.update(equal)
    assert min(versions[1], versions[2]) > 10


def test_iterators_and_refusing_clients_do_not_mix_versions(deployment: Deployment) -> None:
    repository = deployment.folder.path.parent
    deployment.put(1)
    with (
        EmbeddingClient(deployment.server.grpc_url, MODEL, repository=repository) as client,
        EmbeddingClient(deployment.server.grpc_url, MODEL, repository=repository, on_new_version="refuse") as refusing,
    ):
        arrays = client.iter_queries((query for _ in range(500) for query in QUERIES), window_texts=6)
        first = next(arrays)
        deployment.put(2)
        with pytest.raises(ModelChangedError, match="while version 1 computed an iterator's vectors"):
            for vectors in arrays:
                np.testing.assert_allclose(vectors, first, atol=1e-5)
        with pytest.raises(ModelChangedError, match="from version 1 to 2"):
            refusing.embed_queries(QUERIES)
        assert np.abs(client.embed_queries(QUERIES) - first).max() > 0.01
