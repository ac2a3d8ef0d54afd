"""Latency of single texts by the token budget of a batch: how much of it is due to the batches."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2_grpc

from qwen3_triton.client import Precision
from qwen3_triton.client.manifest import TOKEN_BUDGET_PARAMETER, ModelFolder
from qwen3_triton.server import LocalServerError, start_triton

from ..contenders.contender import ContenderUnavailableError, RunContext
from ..contenders.ours import MODEL_NAME, export_graph
from ..record import Requests
from ..rows import Rows
from ..samples import load_throughput
from ..workload import WORKLOADS, Workload
from .bulk_job import infer_request
from .cases import CasePlan, CaseResults, Sent, measure_cases
from .load import closed_loop, open_loop
from .model_variants import link_model

_SEED = 17
_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingOptions:
    """Budgets and loads of the part batching."""

    precision: Precision = Precision.INT8
    workloads: tuple[Workload, ...] = (WORKLOADS["mix"], WORKLOADS["queries"])
    budgets: tuple[int, ...] = (1, 128, 256, 512, 1024, 2048)
    """Most tokens of a batch, in ascending order. 1 computes one text at a time: what remains is the latency of a queue
    without batches."""
    shares: tuple[float, ...] = (0.5, 0.9)
    """Arrival rates, as fractions of the highest throughput of all budgets in a closed loop."""
    in_flight: int = 64
    """Requests of the closed loop."""
    load_s: float = 12.0
    """Approximate duration of one repetition of a load."""
    repetitions: int = 3

    @classmethod
    def quick(cls) -> BatchingOptions:
        """Return the smallest options that exercise both loops."""
        return cls(
            precision=Precision.FP32,
            workloads=(WORKLOADS["tiny"],),
            budgets=(1, 64),
            shares=(0.5,),
            in_flight=2,
            load_s=0.2,
            repetitions=1,
        )


def measure_batching(options: BatchingOptions, vocabulary: int, context: RunContext) -> CaseResults:
    """Apply every load to one model for each budget, in another order in each repetition.

    Args:
        options: budgets and loads.
        vocabulary: of the checkpoint.
        context: its checkpoint is served.
    """
    with ExitStack() as cleanup:
        repository = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        try:
            source = ModelFolder(export_graph(context, options.precision) / MODEL_NAME)
            for budget in options.budgets:
                link_budget(source, repository, budget)
            server = cleanup.enter_context(start_triton(repository, progress=context.log))
        except (ContenderUnavailableError, LocalServerError) as exc:
            return CaseResults(not_measured={"batching": str(exc)})
        channel = cleanup.enter_context(grpc.insecure_channel(server.grpc_url))
        served = _Served(stub=service_pb2_grpc.GRPCInferenceServiceStub(channel), budgets=options.budgets)
        plans = [
            plan
            for workload in options.workloads
            for plan in _plan_loads(served, workload.name, workload.rows(vocabulary), options, context)
        ]
        return measure_cases(plans, options.repetitions, served.wait_until_idle, context.log)


def link_budget(source: ModelFolder, repository: Path, budget: int) -> None:
    """Add the model `source` with another token budget to a repository, named by `budget_model`."""

    def change(config: model_config_pb2.ModelConfig) -> None:
        config.parameters[TOKEN_BUDGET_PARAMETER].string_value = str(budget)

    link_model(source, repository, budget_model(budget), change)


def budget_model(budget: int) -> str:
    """Return the name of the model with a token budget."""
    return f"budget-{budget}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """A server with one model for each budget."""

    stub: Any
    budgets: Sequence[int]

    def send(self, budget: int, row: Sequence[int]) -> None:
        """Send one text and wait for the reply."""
        self.stub.ModelInfer(infer_request(budget_model(budget), [row]), timeout=_TIMEOUT_S)

    def wait_until_idle(self) -> None:
        """Wait until nothing of earlier cases is left on the server."""
        for budget in self.budgets:
            self.send(budget, [1])


def _plan_loads(
    served: _Served, name: str, rows: Rows, options: BatchingOptions, context: RunContext
) -> list[CasePlan]:
    """Plan every share of the throughput for every budget."""
    speeds = {budget: _calibrate(served, budget, rows, options.in_flight) for budget in options.budgets}
    for budget, speed in speeds.items():
        context.log(f"{name}, {options.in_flight} in flight, {_label(budget)}: {speed:.1f} texts/s")

    def arrive(budget: int, rate: float) -> Sent:
        requests = max(round(rate * options.load_s), len(rows))
        return Sent(requests=open_loop(partial(served.send, budget), rows, rate, requests, _SEED))

    rates = [round(share * max(speeds.values()), 3) for share in options.shares]
    return [
        CasePlan(
            setting=_label(budget),
            load=f"{name}, {rate:.1f} arrivals/s, {share:.0%} of the throughput",
            run=partial(arrive, budget, rate),
        )
        for share, rate in zip(options.shares, rates, strict=True)
        for budget in options.budgets
    ]


def _calibrate(served: _Served, budget: int, rows: Rows, in_flight: int) -> float:
    """Return the texts per second of a closed loop."""
    requests = closed_loop(partial(served.send, budget), rows, in_flight, max(2 * in_flight, len(rows)))
    return load_throughput(Requests.of(requests)).requests_per_s


def _label(budget: int) -> str:
    return "one text" if budget == 1 else f"{budget:,} tokens"
