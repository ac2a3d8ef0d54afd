"""Processor time of a client's process for each short text, without tokenization."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from ..contenders.contender import RunContext
from ..serving.texts import workload_texts
from ..text_tokenizer import read_tokenizer
from .options import ClientOptions, short_workload
from .process import ClientKind, ClientProcess
from .results import CallCost, CpuTurns
from .served import Served

_SEED = 19
_CALLS_PER_TURN = 3
"""The measured call, one before it and one before the tokenization."""


@dataclass(slots=True, kw_only=True)
class _CostPlan:
    """One client with one number of texts in a call, and its measurements so far."""

    kind: ClientKind
    client: ClientProcess
    calls: Sequence[Sequence[str]]
    tokens: int
    requests: int = 0
    repetitions: list[CpuTurns] = field(default_factory=list)

    def cost(self) -> CallCost:
        """Return the measurements as a part of the record."""
        return CallCost(
            client=self.kind.label,
            texts=len(self.calls[0]),
            tokens=self.tokens,
            calls=_CALLS_PER_TURN * len(self.calls) * len(self.repetitions),
            requests=self.requests,
            repetitions=tuple(self.repetitions),
        )


def measure_costs(served: Served, options: ClientOptions, context: RunContext) -> tuple[CallCost, ...]:
    """Measure both clients with every number of texts, in another order in each repetition.

    Raises:
        ContenderUnavailableError: if a call fails.
    """
    threads, rng = context.threads, random.Random(_SEED)
    texts = workload_texts(short_workload(options), options.tokenizer)
    lengths = list(map(len, read_tokenizer(context.checkpoint / "tokenizer.json").rows(texts)))
    with ExitStack() as cleanup:
        plans = []
        for kind in ClientKind:
            client = ClientProcess(kind, served, threads)
            cleanup.callback(client.stop)
            for size in options.texts_per_call:
                calls = [texts[first : first + size] for first in range(0, len(texts) - size + 1, size)]
                # the number of tokens in a request follows the server's speed
                client.turns(calls)
                tokens = sum(lengths[: size * len(calls)])
                plans.append(_CostPlan(kind=kind, client=client, calls=calls, tokens=tokens))
        for repetition in range(options.repetitions):
            rng.shuffle(plans)
            for plan in plans:
                context.log(
                    f"{plan.kind.label}, {len(plan.calls[0])} texts a call: "
                    f"repetition {repetition + 1} of {options.repetitions}"
                )
                before = served.statistics(threads)
                plan.repetitions.append(plan.client.turns(plan.calls))
                computed = _CALLS_PER_TURN * sum(map(len, plan.calls))
                plan.requests += served.times_since(before, threads, computed).requests
    return tuple(plan.cost() for plan in sorted(plans, key=lambda plan: (plan.kind, len(plan.calls[0]))))
