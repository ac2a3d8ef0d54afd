"""Single texts in a closed loop: from both clients, and from perf_analyzer as an independent load generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from ..contenders.contender import ContenderUnavailableError, RunContext
from ..contenders.ours import program
from ..record import Load, Requests
from ..rows import Rows
from ..samples import load_throughput
from ..serving.perf_analyzer import PERF_ANALYZER_DRIVER, PerfAnalyzer, try_perf_analyzer
from ..serving.texts import workload_texts
from ..text_tokenizer import read_tokenizer
from ..workload import Workload
from .options import ClientOptions
from .process import ClientKind, ClientProcess
from .results import ServerTimes
from .served import Served, thread_model

_SEED = 29


@dataclass(slots=True, kw_only=True)
class _SinglePlan:
    """One load generator and its measurements so far."""

    driver: str
    run: Callable[[int], Requests]
    """Sends about the given number of requests."""
    warmups: Requests = field(default_factory=lambda: Requests.of([]))
    repetitions: list[Requests] = field(default_factory=list)
    server: list[ServerTimes] = field(default_factory=list)

    def load(self, workload: Workload, rows: Rows, options: ClientOptions) -> Load:
        """Return the measurements as a part of the record."""
        batches = [count for times in self.server for count in times.batches]
        return Load(
            program=program(options.precision),
            driver=self.driver,
            workload=workload.name,
            tokens=tuple(map(len, rows)),
            loop="closed",
            in_flight=options.in_flight,
            rate_per_s=None,
            warmups=self.warmups,
            repetitions=tuple(self.repetitions),
            rows=sum(count.rows * count.batches for count in batches),
            executions=sum(count.batches for count in batches),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleTexts:
    """Loads, and the reasons for what could not be measured."""

    loads: tuple[Load, ...]
    not_measured: dict[str, str]


def measure_single_texts(
    served: Served, workload: Workload, options: ClientOptions, context: RunContext
) -> SingleTexts:
    """Apply the load with every generator, in another order in each repetition.

    Raises:
        ContenderUnavailableError: if a client's process fails.
    """
    texts = workload_texts(workload, options.tokenizer)
    rows = read_tokenizer(context.checkpoint / "tokenizer.json").rows(texts)
    not_measured: dict[str, str] = {}
    with ExitStack() as cleanup:
        plans = [_plan_client(kind, served, texts, options, context, cleanup) for kind in ClientKind]
        requests = _warm_up(plans, options, context)
        analyzer = try_perf_analyzer(context, not_measured, wanted=options.perf_analyzer)
        if analyzer is not None:
            plans.append(_plan_analyzer(analyzer, served, rows, options, context))
        _repeat(plans, requests, served, options, context, not_measured)
    loads = tuple(plan.load(workload, rows, options) for plan in plans if plan.repetitions)
    return SingleTexts(loads=loads, not_measured=not_measured)


def _plan_client(
    kind: ClientKind,
    served: Served,
    texts: Sequence[str],
    options: ClientOptions,
    context: RunContext,
    cleanup: ExitStack,
) -> _SinglePlan:
    client = ClientProcess(kind, served, context.threads)
    cleanup.callback(client.stop)
    return _SinglePlan(
        driver=f"{kind.label}, {options.in_flight} {kind.callers}",
        run=partial(client.closed_loop, texts, options.in_flight),
    )


def _plan_analyzer(
    analyzer: PerfAnalyzer, served: Served, rows: Rows, options: ClientOptions, context: RunContext
) -> _SinglePlan:
    model = thread_model(context.threads)

    def run(requests: int) -> Requests:
        return Requests.of(analyzer.closed_loop(served.grpc_url, model, rows, options.in_flight, requests))

    return _SinglePlan(driver=PERF_ANALYZER_DRIVER, run=run)


def _warm_up(plans: Sequence[_SinglePlan], options: ClientOptions, context: RunContext) -> int:
    """Send a few requests with each client, and return the number of requests of a repetition."""
    for plan in plans:
        plan.warmups = plan.run(4 * options.in_flight)
    speed = max(load_throughput(plan.warmups).requests_per_s for plan in plans)
    context.log(f"single texts, {options.in_flight} in flight: {speed:.1f} texts/s")
    return max(round(speed * options.load_s), 4 * options.in_flight)


def _repeat(
    plans: Sequence[_SinglePlan],
    requests: int,
    served: Served,
    options: ClientOptions,
    context: RunContext,
    not_measured: dict[str, str],
) -> None:
    rng = random.Random(_SEED)
    for repetition in range(options.repetitions):
        for plan in rng.sample(list(plans), len(plans)):
            if plan.driver in not_measured:
                continue
            context.log(f"{plan.driver}: repetition {repetition + 1} of {options.repetitions}")
            before = served.statistics(context.threads)
            try:
                sent = plan.run(requests)
            except ContenderUnavailableError as exc:
                not_measured[plan.driver] = str(exc)
                plan.repetitions.clear()
                continue
            plan.repetitions.append(sent)
            plan.server.append(served.times_since(before, context.threads, sent.error.count(None)))
