"""Load tests of this project's models on a real Triton, by its own client and by perf_analyzer."""

from __future__ import annotations

import functools
import json
import random
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from qwen3_triton.client import EmbeddingClient, Precision
from qwen3_triton.server import LocalServerError, start_triton

from ..contenders.contender import ContenderUnavailableError, RunContext
from ..contenders.ours import FAST_PRECISIONS, MODEL_NAME, PRECISIONS, export_graph, program
from ..record import Load, Request, Requests
from ..rows import Rows
from ..samples import load_throughput
from ..text_tokenizer import TextTokenizer, read_tokenizer
from ..workload import Workload
from .load import closed_loop, open_loop
from .perf_analyzer import PERF_ANALYZER_DRIVER, PerfAnalyzer, try_perf_analyzer
from .texts import workload_texts

CLIENT_DRIVER = "qwen3-triton client"
_SEED = 11
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Precisions, loads and durations of the part serving."""

    precisions: tuple[Precision, ...] = PRECISIONS
    in_flight: tuple[int, ...] = (1, 4, 16, 64)
    rates: tuple[float, ...] = (0.5, 0.7, 0.9)
    """Arrival rates of the open loop, as fractions of the closed loop's highest throughput."""
    load_s: float = 5.0
    """Approximate duration of one repetition of a load."""
    repetitions: int = 3
    perf_analyzer: bool = True
    tokenizer: TextTokenizer | None = None
    """Tokenizer of the checkpoint; None is a byte-level tokenizer."""

    @classmethod
    def quick(cls) -> LoadOptions:
        """Return the smallest options that exercise both loops."""
        return cls(
            precisions=FAST_PRECISIONS, in_flight=(1, 4), rates=(0.5,), load_s=0.5, repetitions=2, perf_analyzer=False
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingResults:
    """Loads, and the reasons for what could not be measured."""

    loads: tuple[Load, ...] = ()
    not_measured: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _LoadPlan:
    """One load and its measurements so far."""

    program: str
    driver: str
    in_flight: int | None
    rate_per_s: float | None
    run: Callable[[int], list[Request]]
    """Sends the given number of requests."""
    requests: int
    read_counts: Callable[[], _ServerCounts]
    warmups: list[Request] = field(default_factory=list)
    repetitions: list[Requests] = field(default_factory=list)
    counts: list[_ServerCounts] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _ServerCounts:
    """Triton's inference statistics."""

    rows: int
    executions: int


def measure_serving(workload: Workload, options: LoadOptions, context: RunContext) -> ServingResults:
    """Apply every load to every precision; the order of the loads changes in each repetition."""
    texts = workload_texts(workload, options.tokenizer)
    rows = read_tokenizer(context.checkpoint / "tokenizer.json").rows(texts)
    not_measured: dict[str, str] = {}
    with ExitStack() as cleanup:
        analyzer = try_perf_analyzer(context, not_measured, wanted=options.perf_analyzer)
        plans: list[_LoadPlan] = []
        for precision in options.precisions:
            context.log(f"serving {program(precision)}")
            try:
                plans += _plan_loads(precision, texts, rows, options, context, cleanup, analyzer)
            except (ContenderUnavailableError, LocalServerError) as exc:
                not_measured[f"serving {program(precision)}"] = str(exc)
        _repeat(plans, options, context, not_measured)
        tokens = tuple(map(len, rows))
        return ServingResults(
            loads=tuple(_load(plan, workload, tokens) for plan in plans if plan.repetitions), not_measured=not_measured
        )


def _plan_loads(
    precision: Precision,
    texts: Sequence[str],
    rows: Rows,
    options: LoadOptions,
    context: RunContext,
    cleanup: ExitStack,
    analyzer: PerfAnalyzer | None,
) -> list[_LoadPlan]:
    """Start a server and plan its loads; the open loop's rates depend on the closed loop's throughput."""
    repository = export_graph(context, precision)
    server = cleanup.enter_context(start_triton(repository, progress=context.log))
    client = cleanup.enter_context(
        EmbeddingClient(server.grpc_url, MODEL_NAME, repository=repository, timeout_s=_TIMEOUT_S)
    )
    read_counts = functools.partial(_read_counts, server.http_url)

    def send(text: str) -> None:
        client.embed_documents([text])

    make = functools.partial(_LoadPlan, program=program(precision), read_counts=read_counts)
    plans, best = [], 0.0
    for in_flight in options.in_flight:
        speed = _calibrate(send, texts, in_flight)
        best = max(best, speed)
        requests = max(round(speed * options.load_s), 2 * in_flight, len(texts))
        ours = functools.partial(closed_loop, send, texts, in_flight)
        plans.append(make(driver=CLIENT_DRIVER, in_flight=in_flight, rate_per_s=None, run=ours, requests=requests))
        if analyzer is not None:
            theirs = functools.partial(analyzer.closed_loop, server.grpc_url, MODEL_NAME, rows, in_flight)
            plans.append(
                make(driver=PERF_ANALYZER_DRIVER, in_flight=in_flight, rate_per_s=None, run=theirs, requests=requests)
            )
    for share in options.rates:
        rate = round(share * best, 3)
        opened = functools.partial(_open, send, texts, rate)
        requests = max(round(rate * options.load_s), len(texts))
        plans.append(make(driver=CLIENT_DRIVER, in_flight=None, rate_per_s=rate, run=opened, requests=requests))
    return plans


def _calibrate(send: Callable[[str], None], texts: Sequence[str], in_flight: int) -> float:
    """Return the approximate requests per second of a closed loop."""
    closed_loop(send, texts, in_flight, 2 * in_flight)
    requests = closed_loop(send, texts, in_flight, max(len(texts), 2 * in_flight))
    return load_throughput(Requests.of(requests)).requests_per_s


def _open(send: Callable[[str], None], texts: Sequence[str], rate: float, requests: int) -> list[Request]:
    return open_loop(send, texts, rate, requests, _SEED)


def _repeat(plans: list[_LoadPlan], options: LoadOptions, context: RunContext, not_measured: dict[str, str]) -> None:
    rng = random.Random(_SEED)
    for repetition in range(options.repetitions):
        order = list(plans)
        rng.shuffle(order)
        for plan in order:
            context.log(f"{_name(plan)}: repetition {repetition + 1} of {options.repetitions}")
            before = plan.read_counts()
            try:
                if not plan.repetitions and plan.driver == CLIENT_DRIVER:
                    plan.warmups = plan.run(max(plan.in_flight or 0, 8))
                plan.repetitions.append(Requests.of(plan.run(plan.requests)))
            except ContenderUnavailableError as exc:
                not_measured[_name(plan)] = str(exc)
            after = plan.read_counts()
            plan.counts.append(_ServerCounts(after.rows - before.rows, after.executions - before.executions))


def _name(plan: _LoadPlan) -> str:
    load = f"{plan.in_flight} in flight" if plan.in_flight else f"{plan.rate_per_s:.1f} arrivals/s"
    return f"{plan.program} with {plan.driver}, {load}"


def _load(plan: _LoadPlan, workload: Workload, tokens: tuple[int, ...]) -> Load:
    return Load(
        program=plan.program,
        driver=plan.driver,
        workload=workload.name,
        tokens=tokens,
        loop="closed" if plan.in_flight else "open",
        in_flight=plan.in_flight,
        rate_per_s=plan.rate_per_s,
        warmups=Requests.of(plan.warmups),
        repetitions=tuple(plan.repetitions),
        rows=sum(counts.rows for counts in plan.counts),
        executions=sum(counts.executions for counts in plan.counts),
    )


def _read_counts(http_url: str) -> _ServerCounts:
    with urllib.request.urlopen(f"{http_url}/v2/models/{MODEL_NAME}/stats", timeout=_TIMEOUT_S) as response:
        (stats,) = json.load(response)["model_stats"]
    return _ServerCounts(int(stats["inference_count"]), int(stats["execution_count"]))
