"""Whether two runs put the contenders in the same order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from .record import Entry, Record, Round
from .samples import paired_ratio, repetition_means


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Pairs of contenders that both runs measured on one workload."""

    workload: str
    pairs: int
    alike: int
    """That both runs tell apart, and in the same order."""
    reversed: tuple[str, ...]
    """That both tell apart, and in opposite orders."""


def compare_orders(first: Record, second: Record) -> list[Order]:
    """One for each workload of both.

    A run tells two contenders apart where the quartiles of their paired ratio lie on one side of 1.
    """
    return [
        _compare(each, other) for each in first.rounds for other in second.rounds if each.workload == other.workload
    ]


def _compare(first: Round, second: Round) -> Order:
    others = {entry.program: entry for entry in second.entries}
    both = [entry for entry in first.entries if entry.program in others]
    pairs, alike, reversed_pairs = 0, 0, []
    for left, right in itertools.combinations(both, 2):
        pairs += 1
        before = _slower(left, right, first)
        after = _slower(others[left.program], others[right.program], second)
        if before * after > 0:
            alike += 1
        elif before * after < 0:
            reversed_pairs.append(f"{left.program} and {right.program}")
    return Order(workload=first.workload.name, pairs=pairs, alike=alike, reversed=tuple(reversed_pairs))


def _slower(left: Entry, right: Entry, measured: Round) -> int:
    """1 where `left` takes longer, -1 where `right` does, 0 where the run cannot tell."""
    passes = measured.workload.passes
    ratio = paired_ratio(repetition_means(left.walls_s, passes), repetition_means(right.walls_s, passes))
    return (ratio.low > 1) - (ratio.high < 1)
