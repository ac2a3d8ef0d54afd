"""Whether two runs rank the contenders in the same order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from .record import Comparison, Entry, Record
from .samples import paired_ratio, repetition_means


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderAgreement:
    """Agreement of two runs on the pairs of contenders that both measured on one workload."""

    workload: str
    pairs: int
    same_order: int
    """Pairs that differ clearly in both runs, in the same order."""
    reversed: tuple[str, ...]
    """Pairs that differ clearly in both runs, in opposite orders."""


def compare_orders(first: Record, second: Record) -> list[OrderAgreement]:
    """Compare the order of the contenders on each workload that both records contain.

    Two contenders differ clearly in a run if both quartiles of their paired ratio are on the same side of 1.
    """
    return [
        _compare(left, right)
        for left in first.comparisons
        for right in second.comparisons
        if left.workload == right.workload
    ]


def _compare(first: Comparison, second: Comparison) -> OrderAgreement:
    others = {entry.program: entry for entry in second.entries}
    both = [entry for entry in first.entries if entry.program in others]
    pairs, same_order, reversed_pairs = 0, 0, []
    for left, right in itertools.combinations(both, 2):
        pairs += 1
        before = _slower(left, right, first)
        after = _slower(others[left.program], others[right.program], second)
        if before * after > 0:
            same_order += 1
        elif before * after < 0:
            reversed_pairs.append(f"{left.program} and {right.program}")
    return OrderAgreement(
        workload=first.workload.name, pairs=pairs, same_order=same_order, reversed=tuple(reversed_pairs)
    )


def _slower(left: Entry, right: Entry, comparison: Comparison) -> int:
    """Return 1 if `left` is clearly slower, -1 if `right` is, else 0."""
    passes = comparison.workload.passes
    ratio = paired_ratio(repetition_means(left.walls_s, passes), repetition_means(right.walls_s, passes))
    return (ratio.low > 1) - (ratio.high < 1)
