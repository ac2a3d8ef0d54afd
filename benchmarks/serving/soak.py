"""A mixed load for half an hour, with checks of the results, and the memory of the server and of its clients.

All loads run at the same time: queries of a shared client, an endless bulk job, clients that connect for one text, raw
requests of any shape with invalid ids, and requests that are abandoned.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from qwen3_triton.client import EmbeddingClient, Precision
from qwen3_triton.server import LocalServerError, TritonServer, start_triton

from ..contenders.contender import ContenderUnavailableError, RunContext
from ..contenders.ours import MODEL_NAME, export_graph
from ..process_memory import allocated_mb, descendants
from ..record import MemorySample, Soak
from ..text_tokenizer import TextTokenizer
from ..workload import Workload
from .bulk_job import ids_request
from .texts import workload_texts

_SEED = 17
_TIMEOUT_S = 120.0
_ATOL = 1e-4
_MOST_QUERIES = 4
_WINDOW_TEXTS = 64
_RAW_ROWS, _RAW_WIDTH = 8, 64
_ABANDONED_ROWS = 16
_LONGEST_PATIENCE_S = 0.05
_PAUSE_S = 0.05
"""Pause between the requests of the loads other than the bulk job, which leaves it a part of the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakOptions:
    """Duration of the part soak."""

    duration_s: float = 1800.0
    sample_s: float = 10.0
    """Time between two looks at the memory."""
    precision: Precision = Precision.FP32
    tokenizer: TextTokenizer | None = None
    """Tokenizer of the checkpoint; None is a byte-level tokenizer."""

    @classmethod
    def quick(cls) -> SoakOptions:
        """Return the shortest run that exercises every load."""
        return cls(duration_s=3.0, sample_s=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakResults:
    """The run, and the reason if it could not be made."""

    soak: Soak | None = None
    not_measured: dict[str, str] = field(default_factory=dict)


class _Loads:
    """The loads on one server, and what became of their requests."""

    def __init__(self, url: str, texts: Sequence[str], truth: NDArray[np.float32], client: EmbeddingClient) -> None:
        self._url = url
        self._texts = texts
        self._truth = truth
        self._client = client
        self._stopped = threading.Event()
        self._outcomes: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of requests by load and outcome."""
        with self._lock:
            return dict(sorted(self._outcomes.items()))

    def stop(self) -> None:
        """End all loads after their current request."""
        self._stopped.set()

    def queries(self) -> None:
        """Embed a few texts at a time with a shared client, and compare the vectors."""
        rng = random.Random(_SEED)
        while not self._stopped.wait(_PAUSE_S):
            chosen = rng.choices(range(len(self._texts)), k=rng.randint(1, _MOST_QUERIES))
            self._count("query", self._compare(self._client.embed_documents([self._texts[i] for i in chosen]), chosen))

    def bulk(self) -> None:
        """Embed the texts again and again with an iterator."""
        positions = itertools.cycle(range(len(self._texts)))
        endless = (self._texts[position] for position in itertools.cycle(range(len(self._texts))))
        with closing(self._client.iter_documents(endless, window_texts=_WINDOW_TEXTS)) as arrays:
            for vectors in arrays:
                self._count("bulk window", self._compare(vectors, list(itertools.islice(positions, len(vectors)))))
                if self._stopped.is_set():
                    return

    def connections(self) -> None:
        """Connect a client for one text."""
        for position in itertools.cycle(range(len(self._texts))):
            if self._stopped.wait(_PAUSE_S):
                return
            with EmbeddingClient(self._url, MODEL_NAME, timeout_s=_TIMEOUT_S) as client:
                self._count("new client", self._compare(client.embed_documents([self._texts[position]]), [position]))

    def raw_requests(self) -> None:
        """Send requests of any shape, some of whose ids are invalid or padding."""
        rng = np.random.default_rng(_SEED)
        with grpc.insecure_channel(self._url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not self._stopped.wait(_PAUSE_S):
                rows, width = int(rng.integers(1, _RAW_ROWS + 1)), int(rng.integers(0, _RAW_WIDTH + 1))
                ids = rng.integers(-2, self._client.manifest.vocabulary_size + 2, (rows, width))
                try:
                    stub.ModelInfer(ids_request(MODEL_NAME, ids), timeout=_TIMEOUT_S)
                    outcome = "answered"
                except grpc.RpcError as exc:
                    outcome = exc.code().name
                self._count("raw request without ids" if width == 0 else "raw request", outcome)

    def abandoned_requests(self) -> None:
        """Send requests and stop waiting after some milliseconds."""
        rng = np.random.default_rng(_SEED)
        ids = rng.integers(0, self._client.manifest.vocabulary_size, (_ABANDONED_ROWS, _RAW_WIDTH))
        with grpc.insecure_channel(self._url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not self._stopped.wait(_PAUSE_S):
                call = stub.ModelInfer.future(ids_request(MODEL_NAME, ids))
                time.sleep(rng.uniform(0, _LONGEST_PATIENCE_S))
                self._count("abandoned request", "cancelled" if call.cancel() else "answered in time")

    def _compare(self, vectors: NDArray[np.float32], positions: Sequence[int]) -> str:
        return "right" if np.allclose(vectors, self._truth[list(positions)], atol=_ATOL) else "wrong"

    def _count(self, load: str, outcome: str) -> None:
        with self._lock:
            self._outcomes[f"{load}: {outcome}"] += 1


def measure_soak(workload: Workload, options: SoakOptions, context: RunContext) -> SoakResults:
    """Apply all loads at the same time, and sample the memory."""
    texts = workload_texts(workload, options.tokenizer)
    with ExitStack() as cleanup:
        repository = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        try:
            exported = export_graph(context, options.precision) / MODEL_NAME
            (repository / MODEL_NAME).symlink_to(exported.resolve())
            server = cleanup.enter_context(start_triton(repository, progress=context.log))
        except (ContenderUnavailableError, LocalServerError) as exc:
            return SoakResults(not_measured={"soak": str(exc)})
        client = cleanup.enter_context(EmbeddingClient(server.grpc_url, MODEL_NAME, timeout_s=_TIMEOUT_S))
        truth = np.concatenate([client.embed_documents([text]) for text in texts])
        loads = _Loads(server.grpc_url, texts, truth, client)
        samples = _run(loads, server, options, context.log)
    return SoakResults(
        soak=Soak(
            precision=options.precision, duration_s=options.duration_s, outcomes=loads.outcomes, memory=tuple(samples)
        )
    )


def _run(loads: _Loads, server: TritonServer, options: SoakOptions, log: Callable[[str], None]) -> list[MemorySample]:
    running = (loads.queries, loads.bulk, loads.connections, loads.raw_requests, loads.abandoned_requests)
    samples: list[MemorySample] = []
    started_s = time.monotonic()
    with ThreadPoolExecutor(len(running)) as pool:
        jobs = [pool.submit(load) for load in running]
        try:
            # a load that fails ends the run
            while (elapsed_s := time.monotonic() - started_s) < options.duration_s and not any(
                job.done() for job in jobs
            ):
                sample = _sample(server, elapsed_s)
                samples.append(sample)
                log(
                    f"{elapsed_s:.0f} s: server {sample.server_mb:.0f} MB, backend {sample.backend_mb:.0f} MB, "
                    f"clients {sample.clients_mb:.0f} MB"
                )
                time.sleep(options.sample_s)
        finally:
            loads.stop()
        for job in jobs:
            job.result()
    return samples


def _sample(server: TritonServer, elapsed_s: float) -> MemorySample:
    processes = descendants(server.pid)
    of_triton = [pid for pid, name in processes.items() if name == "tritonserver"]
    return MemorySample(
        elapsed_s=round(elapsed_s, 1),
        server_mb=round(sum(map(allocated_mb, of_triton)), 1),
        backend_mb=round(sum(allocated_mb(pid) for pid in processes if pid not in of_triton), 1),
        clients_mb=round(allocated_mb(os.getpid()), 1),
    )
