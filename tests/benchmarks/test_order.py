"""Agreement of two runs on the order of the contenders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sample_record import OURS, entry, sample_record

from benchmarks.order import OrderAgreement, compare_orders
from benchmarks.record import Record
from benchmarks.report import render_report


def _record(ours_s: Sequence[float], others_s: Sequence[float]) -> Record:
    record = sample_record()
    entries = (entry(OURS, "alone", ours_s), entry("other", "alone", others_s))
    return dataclasses.replace(record, comparisons=(dataclasses.replace(record.comparisons[0], entries=entries),))


_FASTER = _record([1.0, 1.1, 1.0], [2.0, 2.1, 1.9])
_SLOWER = _record([3.0, 3.1, 3.0], [2.0, 2.1, 1.9])
_EQUAL = _record([1.9, 2.2, 2.0], [2.0, 2.1, 1.9])


def test_order_does_not_depend_on_the_speed_of_the_machine() -> None:
    half_as_fast = _record([2.0, 2.2, 2.0], [4.0, 4.2, 3.8])
    assert compare_orders(_FASTER, half_as_fast) == [
        OrderAgreement(workload="tiny", pairs=1, same_order=1, reversed=())
    ]


def test_reversed_pair_is_named() -> None:
    (order,) = compare_orders(_FASTER, _SLOWER)
    assert (order.same_order, order.reversed) == (0, (f"{OURS} and other",))
    assert f"reversed: {OURS} and other" in render_report([_FASTER, _SLOWER])


def test_contenders_that_do_not_differ_clearly_have_no_order() -> None:
    assert compare_orders(_FASTER, _EQUAL) == [OrderAgreement(workload="tiny", pairs=1, same_order=0, reversed=())]
    assert compare_orders(_EQUAL, _SLOWER) == [OrderAgreement(workload="tiny", pairs=1, same_order=0, reversed=())]


def test_contenders_and_workloads_of_only_one_run_are_ignored() -> None:
    alone = dataclasses.replace(_FASTER.comparisons[0], entries=_FASTER.comparisons[0].entries[:1])
    assert compare_orders(_FASTER, dataclasses.replace(_FASTER, comparisons=(alone,))) == [
        OrderAgreement(workload="tiny", pairs=0, same_order=0, reversed=())
    ]
    shape = {**_FASTER.comparisons[0].workload.shape, "layers": 9}
    deeper = dataclasses.replace(_FASTER.comparisons[0].workload, shape=shape)
    other = dataclasses.replace(_FASTER, comparisons=(dataclasses.replace(_FASTER.comparisons[0], workload=deeper),))
    assert compare_orders(_FASTER, other) == []
    assert "order" not in render_report([_FASTER, other])
