"""Renders records as text for the terminal."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from .client.tables import client_line, client_sections
from .cost import CorePrice, core_seconds_table, cost_table, price_line
from .order import compare_orders
from .record import Comparison, Record
from .tables import (
    breakdown_tables,
    code_line,
    exports_table,
    latency_table,
    loads_table,
    machine_line,
    model_line,
    quality_table,
    scaling_table,
    served_line,
    soak_memory_table,
    soak_outcomes_table,
    speed_table,
    workload_line,
)


class EnvironmentMismatchError(Exception):
    """The records come from different machines, thread counts or package versions."""


def render_report(records: Sequence[Record], price: CorePrice | None = None) -> str:
    """Render the tables of all records, and whether consecutive runs rank the contenders in the same order.

    Args:
        records: the records.
        price: also tabulate what a million texts cost at this price.

    Raises:
        EnvironmentMismatchError: if the records come from different environments.
    """
    require_one_environment(records)
    orders = [_render_orders(first, second) for first, second in itertools.pairwise(records)]
    return "\n\n".join([*(render_record(record, price) for record in records), *filter(None, orders)])


def _render_orders(first: Record, second: Record) -> str:
    """Render one line for each workload that both records contain."""
    lines = []
    for order in compare_orders(first, second):
        clear = order.same_order + len(order.reversed)
        reversed_pairs = "".join(f"; reversed: {pair}" for pair in order.reversed)
        lines.append(
            f"{order.workload}: {clear} of {order.pairs} pairs of contenders differ clearly in both runs, "
            f"{order.same_order} of them in the same order{reversed_pairs}"
        )
    return "\n".join([f"order in {first.started} and in {second.started}", *lines]) if lines else ""


def render_record(record: Record, price: CorePrice | None = None) -> str:
    """Render a header and one table for each part of the run, and costs if there is a price."""
    parts = [
        f"{code_line(record)}\n{machine_line(record)}",
        *(_render_comparison(each) for each in record.comparisons),
    ]
    speeds = core_seconds_table(record)
    if speeds.rows:
        parts.append(speeds.to_text())
    if speeds.rows and price:
        parts.append(f"{price_line(price)}\n{cost_table(record, price).to_text()}")
    if record.loads:
        parts.append(f"served: {served_line(record)}\n{loads_table(record.loads).to_text()}")
    if record.overload:
        parts.append(f"single texts\n{latency_table(record.overload).to_text()}")
    if record.batching:
        parts.append(f"token budgets of a batch\n{latency_table(record.batching).to_text()}")
    if record.client:
        tables = (f"{section.title.lower()}\n{section.table.to_text()}" for section in client_sections(record))
        parts.append("\n\n".join([f"client: {client_line(record.client)}", *tables]))
    if record.soak and record.soak.memory:
        soaked = (soak_memory_table(record.soak), soak_outcomes_table(record.soak))
        parts.append("\n".join(["soak", *(table.to_text() for table in soaked)]))
    if record.exports:
        parts.append(f"exports without verification\n{exports_table(record.exports).to_text()}")
    if record.quality:
        parts.append(f"nDCG@10 of the model '{record.quality[0].model}'\n{quality_table(record.quality).to_text()}")
    if record.scaling:
        parts.append(scaling_table(record.scaling).to_text())
    parts += [f"not measured: {what}: {reason}" for what, reason in record.not_measured.items()]
    return "\n\n".join(parts)


def require_one_environment(records: Sequence[Record]) -> None:
    """Check that all records have the same machine, threads and versions.

    Raises:
        EnvironmentMismatchError: if they do not.
    """
    for other in records[1:]:
        pairs = dataclasses.asdict(records[0].environment), dataclasses.asdict(other.environment)
        differing = [name for name in pairs[0] if pairs[0][name] != pairs[1][name]]
        if differing:
            raise EnvironmentMismatchError(
                f"records of {records[0].started} and {other.started} differ in {', '.join(differing)}; "
                "report them separately"
            )


def _render_comparison(comparison: Comparison) -> str:
    loads = comparison.load_average
    header = f"{workload_line(comparison)}; {model_line(comparison)}; load average {min(loads)} to {max(loads)}"
    not_measured = [f"not measured: {name}: {reason}" for name, reason in comparison.not_measured.items()]
    breakdown = ("\n" + table.to_text() for table in breakdown_tables(comparison))
    return "\n".join([header, speed_table(comparison).to_text(), *not_measured, *breakdown])
