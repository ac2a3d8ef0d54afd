"""Bulk jobs that keep a server busy while other requests are timed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from qwen3_triton.client import EmbeddingClient

from ..rows import Rows

UNPACED_REQUESTS = 8
UNPACED_ROWS = 64
_WINDOW_TEXTS = 256
_PADDING_ID = -1


@contextmanager
def paced_job(client: EmbeddingClient, texts: Sequence[str]) -> Iterator[None]:
    """Embed `texts` with this project's client, again and again, until the context ends."""
    stopped = threading.Event()

    def embed() -> None:
        endless = itertools.takewhile(lambda _: not stopped.is_set(), itertools.cycle(texts))
        with closing(client.iter_documents(endless, window_texts=_WINDOW_TEXTS)) as arrays:
            for _ in arrays:
                if stopped.is_set():
                    return

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(embed)
        try:
            yield
        finally:
            stopped.set()
        job.result()


@contextmanager
def unpaced_job(stub: Any, model: str, rows: Rows) -> Iterator[None]:
    """Keep UNPACED_REQUESTS requests of UNPACED_ROWS rows in flight, whatever the server's speed.

    When the context ends, the requests in flight are cancelled.
    """
    request = infer_request(model, list(itertools.islice(itertools.cycle(rows), UNPACED_ROWS)))
    stopped = threading.Event()
    calls: dict[int, Any] = {}

    def send(number: int) -> None:
        while not stopped.is_set():
            calls[number] = stub.ModelInfer.future(request)
            if stopped.is_set():
                calls[number].cancel()
            try:
                calls[number].result()
            except grpc.FutureCancelledError:
                return

    with ThreadPoolExecutor(UNPACED_REQUESTS) as pool:
        jobs = [pool.submit(send, number) for number in range(UNPACED_REQUESTS)]
        try:
            yield
        finally:
            stopped.set()
            for call in list(calls.values()):
                call.cancel()
        for job in jobs:
            job.result()


def infer_request(model: str, rows: Rows, priority: int = 0) -> Any:
    """Return a ModelInferRequest for `rows`, padded on the right; priority 0 is the model's default."""
    request = ids_request(model, pad_rows(rows))
    if priority:
        request.parameters["priority"].int64_param = priority
    return request


def ids_request(model: str, ids: NDArray[np.int64]) -> Any:
    """Return a ModelInferRequest for token ids [rows, width]."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="input_ids", datatype="INT64", shape=ids.shape)
    content = ids.astype("<i8", copy=False).tobytes()
    return service_pb2.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[content])


def pad_rows(rows: Rows) -> NDArray[np.int64]:
    """Return `rows` as one array [rows, longest row], padded on the right."""
    ids = np.full((len(rows), max(map(len, rows))), _PADDING_ID, np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids
