"""The served models of the part client, and Triton's statistics of them."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from qwen3_triton.client.manifest import ModelFolder
from qwen3_triton.server import start_triton

from ..contenders.contender import RunContext
from ..contenders.ours import MODEL_NAME
from ..serving.model_variants import link_model
from .results import BatchCount, ServerTimes

_THREADS_PARAMETER = "intra_op_thread_count"
_NANO = 1e-9
_TIMEOUT_S = 60
_COUNTING_S = 5.0
_POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server with one model for each number of threads, each with one instance."""

    grpc_url: str
    http_url: str
    stub: Any
    repository: Path

    def folder(self, threads: int) -> ModelFolder:
        """Return the folder of a model."""
        return ModelFolder(self.repository / thread_model(threads))

    def config(self, threads: int) -> str:
        """Return the configuration of a model as backends get it, JSON."""
        url = f"{self.http_url}/v2/models/{thread_model(threads)}/config"
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            content: bytes = response.read()
        return content.decode()

    def statistics(self, threads: int) -> Any:
        """Return the ModelStatistics message of a model, which counts from the start of the server."""
        request = service_pb2.ModelStatisticsRequest(name=thread_model(threads))
        [statistics] = self.stub.ModelStatistics(request).model_stats
        return statistics

    def times_since(self, before: Any, threads: int, rows: int) -> ServerTimes:
        """Return what happened since a ModelStatistics message, in which the server computed at least `rows` rows.

        Triton counts a batch after its replies; a batch that failed is not waited for long.
        """
        deadline_s = time.monotonic() + _COUNTING_S
        while (after := self.statistics(threads)).inference_count < before.inference_count + rows:
            if time.monotonic() > deadline_s:
                break
            time.sleep(_POLL_S)
        return times_between(before, after)


@contextlib.contextmanager
def serve_threads(source: ModelFolder, numbers: Sequence[int], folder: Path, context: RunContext) -> Iterator[Served]:
    """Serve a model once for each number of threads.

    Args:
        source: the exported model.
        numbers: numbers of threads.
        folder: empty folder for the repository.
        context: receives lines of progress.

    Raises:
        LocalServerError: if the server does not start.
    """
    for threads in numbers:
        link_threads(source, folder, threads)
    with start_triton(folder, progress=context.log) as server, grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        yield Served(grpc_url=server.grpc_url, http_url=server.http_url, stub=stub, repository=folder)


def link_threads(source: ModelFolder, repository: Path, threads: int) -> None:
    """Add the model `source` with a number of threads and one instance to a repository."""

    def change(config: model_config_pb2.ModelConfig) -> None:
        config.parameters[_THREADS_PARAMETER].string_value = str(threads)
        config.instance_group[0].count = 1

    link_model(source, repository, thread_model(threads), change)


def thread_model(threads: int) -> str:
    """Return the name of the model with a number of threads."""
    return f"{MODEL_NAME}-{threads}-threads"


def times_between(before: Any, after: Any) -> ServerTimes:
    """Return what happened between two ModelStatistics messages of a model."""
    earlier = {each.batch_size: each for each in before.batch_stats}
    batches, seconds = [], dict.fromkeys(("compute_input", "compute_infer", "compute_output"), 0.0)
    for now in after.batch_stats:
        then = earlier.get(now.batch_size, service_pb2.InferBatchStatistics())
        count = now.compute_infer.count - then.compute_infer.count
        if count:
            batches.append(BatchCount(rows=now.batch_size, batches=count))
        for name in seconds:
            seconds[name] += (getattr(now, name).ns - getattr(then, name).ns) * _NANO
    totals, earlier_totals = after.inference_stats, before.inference_stats
    return ServerTimes(
        requests=totals.success.count - earlier_totals.success.count,
        batches=tuple(batches),
        queue_s=round((totals.queue.ns - earlier_totals.queue.ns) * _NANO, 6),
        input_s=round(seconds["compute_input"], 6),
        infer_s=round(seconds["compute_infer"], 6),
        output_s=round(seconds["compute_output"], 6),
    )
