"""This project's models behind a real Triton, by its own client and by perf_analyzer, in closed and open loop."""

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

from ..contenders.contender import Bench, CannotRun
from ..contenders.ours import FAST_PRECISIONS, MODEL_NAME, PRECISIONS, export_graph, program
from ..record import Load, Request, Requests
from ..rows import Rows
from ..samples import load_speed
from ..text_tokenizer import TextTokenizer, read_tokenizer
from ..workload import Workload
from .load import closed_loop, open_loop
from .perf_analyzer import VERSION, PerfAnalyzer, install_perf_analyzer
from .texts import workload_texts

OUR_DRIVER = "qwen3-triton client"
THEIR_DRIVER = f"perf_analyzer {VERSION}"
_SEED = 11
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """Which loads, and how long."""

    precisions: tuple[Precision, ...] = PRECISIONS
    in_flight: tuple[int, ...] = (1, 4, 16, 64)
    rates: tuple[float, ...] = (0.5, 0.7, 0.9)
    """Arrivals in the open loop, as shares of what the closed loop reached at most."""
    load_s: float = 5.0
    """About as long as one repetition of a load takes."""
    repetitions: int = 3
    perf_analyzer: bool = True
    tokenizer: TextTokenizer | None = None
    """That of the checkpoint, where it is not the one of one id a byte."""

    @classmethod
    def quick(cls) -> ServingOptions:
        """Enough to see that it works."""
        return cls(
            precisions=FAST_PRECISIONS, in_flight=(1, 4), rates=(0.5,), load_s=0.5, repetitions=2, perf_analyzer=False
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What was measured, and what could not be."""

    loads: tuple[Load, ...] = ()
    not_done: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Plan:
    """One load, and what has been measured of it."""

    program: str
    driver: str
    in_flight: int | None
    rate_per_s: float | None
    run: Callable[[int], list[Request]]
    """Sends so many requests."""
    requests: int
    executions: Callable[[], _Executions]
    warmups: list[Request] = field(default_factory=list)
    repetitions: list[Requests] = field(default_factory=list)
    seen: list[_Executions] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Executions:
    """Triton's own counts."""

    rows: int
    executions: int


def measure_serving(workload: Workload, options: ServingOptions, bench: Bench) -> Served:
    """Every load on every precision, repetition by repetition in changing order."""
    texts = workload_texts(workload, options.tokenizer)
    rows = read_tokenizer(bench.checkpoint / "tokenizer.json").rows(texts)
    not_done: dict[str, str] = {}
    with ExitStack() as undo:
        analyzer = _analyzer(options, bench, not_done)
        plans: list[_Plan] = []
        for precision in options.precisions:
            bench.say(f"serving {program(precision)}")
            try:
                plans += _plans(precision, texts, rows, options, bench, undo, analyzer)
            except (CannotRun, LocalServerError) as exc:
                not_done[f"serving {program(precision)}"] = str(exc)
        _repeat(plans, options, bench, not_done)
        tokens = tuple(map(len, rows))
        return Served(
            loads=tuple(_load(plan, workload, tokens) for plan in plans if plan.repetitions), not_done=not_done
        )


def _analyzer(options: ServingOptions, bench: Bench, not_done: dict[str, str]) -> PerfAnalyzer | None:
    if not options.perf_analyzer:
        not_done[THEIR_DRIVER] = "not part of a quick run"
        return None
    try:
        return install_perf_analyzer(bench)
    except CannotRun as exc:
        bench.say(f"{THEIR_DRIVER} cannot run: {exc}")
        not_done[THEIR_DRIVER] = str(exc)
        return None


def _plans(
    precision: Precision,
    texts: Sequence[str],
    rows: Rows,
    options: ServingOptions,
    bench: Bench,
    undo: ExitStack,
    analyzer: PerfAnalyzer | None,
) -> list[_Plan]:
    """The server's loads; the open loop's rates follow from what the closed loop reaches now."""
    repository = export_graph(bench, precision)
    server = undo.enter_context(start_triton(repository, progress=bench.say))
    client = undo.enter_context(
        EmbeddingClient(server.grpc_url, MODEL_NAME, repository=repository, timeout_s=_TIMEOUT_S)
    )
    executions = functools.partial(_read_executions, server.http_url)

    def send(text: str) -> None:
        client.embed_documents([text])

    make = functools.partial(_Plan, program=program(precision), executions=executions)
    plans, best = [], 0.0
    for in_flight in options.in_flight:
        speed = _calibrate(send, texts, in_flight)
        best = max(best, speed)
        requests = max(round(speed * options.load_s), 2 * in_flight, len(texts))
        ours = functools.partial(closed_loop, send, texts, in_flight)
        plans.append(make(driver=OUR_DRIVER, in_flight=in_flight, rate_per_s=None, run=ours, requests=requests))
        if analyzer is not None:
            theirs = functools.partial(analyzer.closed_loop, server.grpc_url, MODEL_NAME, rows, in_flight)
            plans.append(make(driver=THEIR_DRIVER, in_flight=in_flight, rate_per_s=None, run=theirs, requests=requests))
    for share in options.rates:
        rate = round(share * best, 3)
        opened = functools.partial(_open, send, texts, rate)
        requests = max(round(rate * options.load_s), len(texts))
        plans.append(make(driver=OUR_DRIVER, in_flight=None, rate_per_s=rate, run=opened, requests=requests))
    return plans


def _calibrate(send: Callable[[str], None], texts: Sequence[str], in_flight: int) -> float:
    """Requests a second in a closed loop, roughly."""
    closed_loop(send, texts, in_flight, 2 * in_flight)
    few = closed_loop(send, texts, in_flight, max(len(texts), 2 * in_flight))
    return load_speed(Requests.of(few)).requests_per_s


def _open(send: Callable[[str], None], texts: Sequence[str], rate: float, requests: int) -> list[Request]:
    return open_loop(send, texts, rate, requests, _SEED)


def _repeat(plans: list[_Plan], options: ServingOptions, bench: Bench, not_done: dict[str, str]) -> None:
    dice = random.Random(_SEED)
    for repetition in range(options.repetitions):
        order = list(plans)
        dice.shuffle(order)
        for plan in order:
            bench.say(f"{_name(plan)}: repetition {repetition + 1} of {options.repetitions}")
            before = plan.executions()
            try:
                if not plan.repetitions and plan.driver == OUR_DRIVER:
                    plan.warmups = plan.run(max(plan.in_flight or 0, 8))
                plan.repetitions.append(Requests.of(plan.run(plan.requests)))
            except CannotRun as exc:
                not_done[_name(plan)] = str(exc)
            after = plan.executions()
            plan.seen.append(_Executions(after.rows - before.rows, after.executions - before.executions))


def _name(plan: _Plan) -> str:
    load = f"{plan.in_flight} in flight" if plan.in_flight else f"{plan.rate_per_s:.1f} a second"
    return f"{plan.program} by {plan.driver}, {load}"


def _load(plan: _Plan, workload: Workload, tokens: tuple[int, ...]) -> Load:
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
        rows=sum(seen.rows for seen in plan.seen),
        executions=sum(seen.executions for seen in plan.seen),
    )


def _read_executions(http_url: str) -> _Executions:
    with urllib.request.urlopen(f"{http_url}/v2/models/{MODEL_NAME}/stats", timeout=_TIMEOUT_S) as answer:
        (stats,) = json.load(answer)["model_stats"]
    return _Executions(int(stats["inference_count"]), int(stats["execution_count"]))
