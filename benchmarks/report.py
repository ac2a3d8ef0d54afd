"""Records → text."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from .order import compare_orders
from .record import Record, Round
from .tables import (
    code_line,
    gauge_tables,
    growth_table,
    loads_table,
    machine_line,
    model_line,
    quality_table,
    served_line,
    speed_table,
    workload_line,
)


class EnvironmentsDiffer(Exception):
    """Records of different machines, thread counts or versions stand side by side."""


def render_report(records: Sequence[Record]) -> str:
    """Every record's tables; raises EnvironmentsDiffer where they were not measured alike."""
    require_one_environment(records)
    orders = [_render_orders(first, second) for first, second in itertools.pairwise(records)]
    return "\n\n".join([*(render_record(record) for record in records), *filter(None, orders)])


def _render_orders(first: Record, second: Record) -> str:
    """A line for each workload that both measured."""
    lines = [
        f"{order.workload}: of {order.pairs} pairs of contenders both runs tell {order.alike + len(order.reversed)} "
        f"apart, {order.alike} of them in the same order{''.join(f'; reversed: {pair}' for pair in order.reversed)}"
        for order in compare_orders(first, second)
    ]
    return "\n".join([f"order in {first.started} and in {second.started}", *lines]) if lines else ""


def render_record(record: Record) -> str:
    """Head, and a table for each thing measured in one run."""
    parts = [f"{code_line(record)}\n{machine_line(record)}", *(_render_round(each) for each in record.rounds)]
    if record.loads:
        parts.append(f"served, {served_line(record)}\n{loads_table(record.loads).text()}")
    if record.quality:
        parts.append(f"nDCG@10 of the {record.quality[0].model} model\n{quality_table(record.quality).text()}")
    if record.growth:
        parts.append(growth_table(record.growth).text())
    parts += [f"not done: {what}: {why}" for what, why in record.not_done.items()]
    return "\n\n".join(parts)


def require_one_environment(records: Sequence[Record]) -> None:
    """Raises EnvironmentsDiffer where machine, threads or versions are not the same in all."""
    for other in records[1:]:
        pairs = dataclasses.asdict(records[0].environment), dataclasses.asdict(other.environment)
        differing = [name for name in pairs[0] if pairs[0][name] != pairs[1][name]]
        if differing:
            raise EnvironmentsDiffer(
                f"records of {records[0].started} and {other.started} differ in {', '.join(differing)}; "
                "report them one at a time"
            )


def _render_round(measured: Round) -> str:
    loads = measured.load_average
    head = f"{workload_line(measured)}; {model_line(measured)}; load {min(loads)} to {max(loads)}"
    absent = [f"absent: {name}: {why}" for name, why in measured.absent.items()]
    gauges = ("\n" + table.text() for table in gauge_tables(measured))
    return "\n".join([head, speed_table(measured).text(), *absent, *gauges])
