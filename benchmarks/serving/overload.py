"""Latency of single texts with limits and priorities in Triton's queue, and beside a bulk job.

The first cases show whether a setting of the queue delays requests although the server has little to do: a few callers,
and bursts. The others show how long single texts wait while a bulk job saturates the server.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from qwen3_triton.client import EmbeddingClient, Precision
from qwen3_triton.client.manifest import ModelFolder
from qwen3_triton.server import LocalServerError, start_triton

from ..contenders.contender import ContenderUnavailableError, RunContext
from ..contenders.ours import MODEL_NAME, export_graph
from ..rows import Rows
from ..samples import MIN_REPETITIONS
from ..text_tokenizer import TextTokenizer, read_tokenizer
from ..workload import Workload
from .bulk_job import infer_request, paced_job, unpaced_job
from .cases import CasePlan, CaseResults, Sent, measure_cases
from .load import closed_loop, open_loop
from .model_variants import link_model
from .texts import workload_texts

_SEED = 13
_TIMEOUT_S = 300.0
_BURST_GAP_S = 0.05
_INTERACTIVE = 1
"""Priority of single texts in the model with two levels; the bulk job has the default, 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSetting:
    """A setting of Triton's queue, and the model that has it."""

    model: str
    label: str
    batching: str = ""
    """Fields added to `dynamic_batching` in `config.pbtxt`."""


NO_LIMITS = QueueSetting(model="no-limits", label="no limits")
TWO_LEVELS = QueueSetting(
    model="two-levels", label="two priority levels", batching="priority_levels: 2 default_priority_level: 2"
)
SECOND_COPY = QueueSetting(model="second-copy", label="second copy of the model")
# no request reaches these limits
QUEUE_SETTINGS = (
    NO_LIMITS,
    QueueSetting(model="size", label="max_queue_size", batching="default_queue_policy { max_queue_size: 100000 }"),
    QueueSetting(
        model="timeout",
        label="queue timeout",
        batching="default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 600000000 }",
    ),
    TWO_LEVELS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadOptions:
    """Loads, durations and repetitions of the part overload."""

    precision: Precision = Precision.INT8
    callers: tuple[int, ...] = (1, 4)
    requests: int = 100
    """Requests of these callers in one repetition."""
    burst: int = 32
    """Requests sent at once."""
    bursts: int = 4
    """Bursts in one repetition."""
    rate_per_s: float = 3.0
    """Arrival rate of single texts beside a bulk job."""
    beside_bulk: int = 36
    """Single texts beside a bulk job in one repetition."""
    lead_s: float = 4.0
    """Time that a bulk job runs before the first single text."""
    repetitions: int = MIN_REPETITIONS
    tokenizer: TextTokenizer | None = None
    """Tokenizer of the checkpoint; None is a byte-level tokenizer."""

    @classmethod
    def quick(cls) -> OverloadOptions:
        """Return the smallest options that exercise every case."""
        return cls(
            precision=Precision.FP32,
            callers=(2,),
            requests=4,
            burst=4,
            bursts=1,
            rate_per_s=40.0,
            beside_bulk=4,
            lead_s=0.2,
            repetitions=1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """A server with one model for each setting, and what is sent to it."""

    url: str
    stub: Any
    repository: Path
    texts: Sequence[str]
    rows: Rows

    def send(self, setting: QueueSetting, row: Sequence[int]) -> None:
        """Send one text and wait for the reply."""
        priority = _INTERACTIVE if setting is TWO_LEVELS else 0
        self.stub.ModelInfer(infer_request(setting.model, [row], priority), timeout=_TIMEOUT_S)

    def computed_rows(self, setting: QueueSetting) -> int:
        """Return the number of rows that the model of `setting` has computed."""
        [stats] = self.stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=setting.model)).model_stats
        return int(stats.inference_count)

    def wait_until_idle(self) -> None:
        """Wait until nothing of earlier cases is left on the server."""
        for setting in (NO_LIMITS, TWO_LEVELS, SECOND_COPY):
            self.send(setting, self.rows[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _BulkCase:
    """Single texts beside a bulk job."""

    label: str
    single: QueueSetting
    """Setting of the model that computes the single texts."""
    bulk: QueueSetting
    """Setting of the model that computes the bulk job."""
    start: Callable[[QueueSetting], AbstractContextManager[None]]
    """Starts the bulk job on that model."""


def measure_overload(workload: Workload, options: OverloadOptions, context: RunContext) -> CaseResults:
    """Measure all cases, in another order in each repetition."""
    texts = workload_texts(workload, options.tokenizer)
    rows = read_tokenizer(context.checkpoint / "tokenizer.json").rows(texts)
    with ExitStack() as cleanup:
        repository = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        try:
            source = ModelFolder(export_graph(context, options.precision) / MODEL_NAME)
            for setting in (*QUEUE_SETTINGS, SECOND_COPY):
                link_setting(source, repository, setting)
            server = cleanup.enter_context(start_triton(repository, progress=context.log))
        except (ContenderUnavailableError, LocalServerError) as exc:
            return CaseResults(not_measured={"overload": str(exc)})
        channel = cleanup.enter_context(grpc.insecure_channel(server.grpc_url))
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        served = _Served(url=server.grpc_url, stub=stub, repository=repository, texts=texts, rows=rows)
        plans = [*_plan_queues(served, options), *_plan_bulk_jobs(served, options)]
        return measure_cases(plans, options.repetitions, served.wait_until_idle, context.log)


def link_setting(source: ModelFolder, repository: Path, setting: QueueSetting) -> None:
    """Add the model `source` with a setting of the queue to a repository."""

    def change(config: model_config_pb2.ModelConfig) -> None:
        text_format.Merge(setting.batching, config.dynamic_batching)

    link_model(source, repository, setting.model, change)


def _plan_queues(served: _Served, options: OverloadOptions) -> list[CasePlan]:
    """Plan single texts with every setting; those without limits, the baseline, come first for each load."""

    def call(setting: QueueSetting, callers: int) -> Sent:
        return Sent(requests=closed_loop(partial(served.send, setting), served.rows, callers, options.requests))

    def burst(setting: QueueSetting) -> Sent:
        requests = []
        for _ in range(options.bursts):
            requests += closed_loop(partial(served.send, setting), served.rows, options.burst, options.burst)
            time.sleep(_BURST_GAP_S)
        return Sent(requests=requests)

    plans = [
        CasePlan(
            setting=setting.label,
            load=f"{callers} caller{'s' if callers > 1 else ''}",
            run=partial(call, setting, callers),
        )
        for callers in options.callers
        for setting in QUEUE_SETTINGS
    ]
    bursts = f"bursts of {options.burst}"
    return plans + [
        CasePlan(setting=setting.label, load=bursts, run=partial(burst, setting)) for setting in QUEUE_SETTINGS
    ]


def _plan_bulk_jobs(served: _Served, options: OverloadOptions) -> list[CasePlan]:
    """Plan single texts beside bulk jobs; those beside this project's client, the baseline, come first."""

    @contextmanager
    def paced(bulk: QueueSetting) -> Iterator[None]:
        with (
            EmbeddingClient(served.url, bulk.model, repository=served.repository, timeout_s=_TIMEOUT_S) as client,
            paced_job(client, served.texts),
        ):
            yield

    def unpaced(bulk: QueueSetting) -> AbstractContextManager[None]:
        return unpaced_job(served.stub, bulk.model, served.rows)

    copy, levels = SECOND_COPY, TWO_LEVELS
    cases = [
        _BulkCase(label="paced client", single=NO_LIMITS, bulk=NO_LIMITS, start=paced),
        _BulkCase(label=f"paced client, {copy.label}", single=NO_LIMITS, bulk=copy, start=paced),
        _BulkCase(label="unpaced client", single=NO_LIMITS, bulk=NO_LIMITS, start=unpaced),
        _BulkCase(label=f"unpaced client, {copy.label}", single=NO_LIMITS, bulk=copy, start=unpaced),
        _BulkCase(label=f"unpaced client, {levels.label}", single=levels, bulk=levels, start=unpaced),
    ]
    alone = partial(open_loop, partial(served.send, NO_LIMITS), served.rows, options.rate_per_s, options.beside_bulk)
    load = f"{options.rate_per_s:g} texts/s beside a bulk job"
    return [
        *(CasePlan(setting=case.label, load=load, run=partial(_beside_bulk, served, case, options)) for case in cases),
        CasePlan(setting="no bulk job", load=load, run=lambda: Sent(requests=alone(_SEED))),
    ]


def _beside_bulk(served: _Served, case: _BulkCase, options: OverloadOptions) -> Sent:
    with case.start(case.bulk):
        time.sleep(options.lead_s)
        before, started_s = served.computed_rows(case.bulk), time.perf_counter()
        requests = open_loop(
            partial(served.send, case.single), served.rows, options.rate_per_s, options.beside_bulk, _SEED
        )
        elapsed_s = time.perf_counter() - started_s
        computed = served.computed_rows(case.bulk) - before
    if case.bulk is case.single:
        computed -= len(requests)
    return Sent(requests=requests, bulk_texts_per_s=round(max(computed, 0) / elapsed_s, 3))
