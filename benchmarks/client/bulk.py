"""Many texts in one call of the client, and the same batches in a session without a server."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..contenders.contender import ContenderUnavailableError, RunContext
from ..contenders.worker import WorkerProcess
from ..rows import Rows
from ..serving.bulk_job import pad_rows
from ..serving.texts import workload_texts
from ..text_tokenizer import read_tokenizer
from ..workers.messages import BatchesRequest, Timed
from .options import ClientOptions, bulk_workload
from .process import ClientKind, ClientProcess
from .results import BatchCount, BulkRepetition, BulkSpeed
from .served import Served

_SEED = 23


@dataclass(slots=True, kw_only=True)
class _BulkPlan:
    """The model with one number of threads, and its measurements so far."""

    threads: int
    client: ClientProcess
    session: WorkerProcess
    texts: Sequence[str]
    rows: Rows
    repetitions: list[BulkRepetition] = field(default_factory=list)

    def repeat(self, served: Served) -> None:
        """Measure once more."""
        tokenized = self.client.tokenize(self.texts)
        before = served.statistics(self.threads)
        called = self.client.embed(self.texts)
        server = served.times_since(before, self.threads, len(self.rows))
        computed = self.session.exchange(BatchesRequest(batches=same_batches(self.rows, server.batches)), Timed)
        self.repetitions.append(
            BulkRepetition(
                client_wall_s=called.wall_s,
                client_cpu_s=called.cpu_s,
                tokenization_wall_s=tokenized.wall_s,
                server=server,
                session_wall_s=computed.wall_s,
                session_cpu_s=computed.cpu_s,
            )
        )

    def speed(self) -> BulkSpeed:
        """Return the measurements as a part of the record."""
        return BulkSpeed(
            threads=self.threads,
            texts=len(self.rows),
            tokens=sum(map(len, self.rows)),
            repetitions=tuple(self.repetitions),
        )


def measure_bulk(
    served: Served, numbers: Sequence[int], options: ClientOptions, context: RunContext
) -> tuple[BulkSpeed, ...]:
    """Measure with each number of threads, in another order in each repetition.

    Raises:
        ContenderUnavailableError: if a call or a batch fails.
    """
    rng = random.Random(_SEED)
    with ExitStack() as cleanup:
        plans = [_plan(served, threads, options, context, cleanup) for threads in numbers]
        for repetition in range(options.repetitions):
            for plan in rng.sample(plans, len(plans)):
                context.log(
                    f"{len(plan.texts)} texts in a call, {plan.threads} threads: "
                    f"repetition {repetition + 1} of {options.repetitions}"
                )
                plan.repeat(served)
    return tuple(plan.speed() for plan in plans)


def same_batches(rows: Rows, counts: Sequence[BatchCount]) -> list[NDArray[np.int64]]:
    """Return padded batches [rows, width] of as many rows as those that the server computed.

    Statistics do not say which rows were in a batch: the client sends the longest first, and of these the fewest in a
    request.

    Raises:
        ContenderUnavailableError: if the server computed another number of rows.
    """
    sizes = [count.rows for count in sorted(counts, key=lambda count: count.rows) for _ in range(count.batches)]
    if sum(sizes) != len(rows):
        raise ContenderUnavailableError(f"the server computed {sum(sizes)} rows for {len(rows)} texts")
    longest_first = iter(sorted(rows, key=len, reverse=True))
    return [pad_rows([next(longest_first) for _ in range(size)]) for size in sizes]


def _plan(served: Served, threads: int, options: ClientOptions, context: RunContext, cleanup: ExitStack) -> _BulkPlan:
    """Start the processes, and choose the number of texts by the server's speed."""
    client = ClientProcess(ClientKind.BLOCKING, served, threads)
    cleanup.callback(client.stop)
    few = _distinct_texts(options, options.fewest_texts)
    # the client's requests grow with its first replies
    client.embed(few)
    speed = len(few) / client.embed(few).wall_s
    context.log(f"{len(few)} texts in a call, {threads} threads: {speed:.1f} texts/s")
    count = min(max(round(speed * options.bulk_s), options.fewest_texts), options.most_texts)
    texts = _distinct_texts(options, count)
    folder = served.folder(threads)
    graph = {"model": str(folder.graph(max(folder.versions()))), "config": served.config(threads)}
    session = WorkerProcess("served_session", graph, Path(sys.executable))
    cleanup.callback(session.stop)
    rows = read_tokenizer(context.checkpoint / "tokenizer.json").rows(texts)
    session.exchange(BatchesRequest(batches=[pad_rows(rows[: options.fewest_texts])]), Timed)
    return _BulkPlan(threads=threads, client=client, session=session, texts=texts, rows=rows)


def _distinct_texts(options: ClientOptions, count: int) -> list[str]:
    # a client sends equal texts once
    return list(dict.fromkeys(workload_texts(bulk_workload(options, count), options.tokenizer)))
