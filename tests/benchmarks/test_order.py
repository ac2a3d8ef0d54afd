"""What two runs of the same contenders say of each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sample_record import OURS, entry, sample_record

from benchmarks.order import Order, compare_orders
from benchmarks.record import Record
from benchmarks.report import render_report


def _record(ours_s: Sequence[float], others_s: Sequence[float]) -> Record:
    record = sample_record()
    entries = (entry(OURS, "alone", ours_s), entry("other", "alone", others_s))
    return dataclasses.replace(record, rounds=(dataclasses.replace(record.rounds[0], entries=entries),))


_FASTER = _record([1.0, 1.1, 1.0], [2.0, 2.1, 1.9])
_SLOWER = _record([3.0, 3.1, 3.0], [2.0, 2.1, 1.9])
_LEVEL = _record([1.9, 2.2, 2.0], [2.0, 2.1, 1.9])


def test_same_order_whatever_the_machine_does() -> None:
    half_as_fast = _record([2.0, 2.2, 2.0], [4.0, 4.2, 3.8])
    assert compare_orders(_FASTER, half_as_fast) == [Order(workload="tiny", pairs=1, alike=1, reversed=())]


def test_reversed_pair_is_named() -> None:
    (order,) = compare_orders(_FASTER, _SLOWER)
    assert (order.alike, order.reversed) == (0, (f"{OURS} and other",))
    assert f"reversed: {OURS} and other" in render_report([_FASTER, _SLOWER])


def test_contenders_that_a_run_cannot_tell_apart_are_in_no_order() -> None:
    assert compare_orders(_FASTER, _LEVEL) == [Order(workload="tiny", pairs=1, alike=0, reversed=())]
    assert compare_orders(_LEVEL, _SLOWER) == [Order(workload="tiny", pairs=1, alike=0, reversed=())]


def test_contenders_of_one_run_and_workloads_of_another_model_are_left_out() -> None:
    alone = dataclasses.replace(_FASTER.rounds[0], entries=_FASTER.rounds[0].entries[:1])
    assert compare_orders(_FASTER, dataclasses.replace(_FASTER, rounds=(alone,))) == [
        Order(workload="tiny", pairs=0, alike=0, reversed=())
    ]
    shape = {**_FASTER.rounds[0].workload.shape, "layers": 9}
    deeper = dataclasses.replace(_FASTER.rounds[0].workload, shape=shape)
    other = dataclasses.replace(_FASTER, rounds=(dataclasses.replace(_FASTER.rounds[0], workload=deeper),))
    assert compare_orders(_FASTER, other) == []
    assert "order" not in render_report([_FASTER, other])
