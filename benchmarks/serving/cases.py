"""Cases of single texts to a server: each is a setting under a load, measured in turns with the others."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc

from qwen3_triton.client import ServerError

from ..contenders.reasons import public_reason
from ..record import LatencyCase, Request, Requests

_SEED = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Single texts of one repetition, and the speed of the bulk job beside them."""

    requests: list[Request]
    bulk_texts_per_s: float | None = None


@dataclass(slots=True, kw_only=True)
class CasePlan:
    """One case and its measurements so far."""

    setting: str
    load: str
    run: Callable[[], Sent]
    repetitions: list[Sent] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the case in progress lines and among what was not measured."""
        return f"{self.setting}, {self.load}"

    def case(self) -> LatencyCase:
        """Return the measurements as a part of the record."""
        speeds = [each.bulk_texts_per_s for each in self.repetitions]
        return LatencyCase(
            setting=self.setting,
            load=self.load,
            repetitions=tuple(Requests.of(each.requests) for each in self.repetitions),
            bulk_texts_per_s=tuple(speed for speed in speeds if speed is not None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResults:
    """Cases, and the reasons for what could not be measured."""

    cases: tuple[LatencyCase, ...] = ()
    not_measured: dict[str, str] = field(default_factory=dict)


def measure_cases(
    plans: Sequence[CasePlan], repetitions: int, wait_until_idle: Callable[[], None], log: Callable[[str], None]
) -> CaseResults:
    """Measure all cases, in another order in each repetition; one that fails is not repeated.

    Args:
        plans: the cases.
        repetitions: repetitions of each.
        wait_until_idle: called before each measurement.
        log: receives lines of progress.
    """
    rng, failures = random.Random(_SEED), dict[str, str]()
    for repetition in range(repetitions):
        order = list(plans)
        rng.shuffle(order)
        for plan in order:
            if plan.name in failures:
                continue
            log(f"{plan.name}: repetition {repetition + 1} of {repetitions}")
            try:
                wait_until_idle()
                plan.repetitions.append(plan.run())
            except grpc.RpcError as exc:
                failures[plan.name] = f"{exc.code().name}: {exc.details()}"
            except ServerError as exc:
                failures[plan.name] = public_reason(str(exc))
    return CaseResults(cases=tuple(plan.case() for plan in plans if plan.name not in failures), not_measured=failures)
