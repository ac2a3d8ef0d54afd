"""Texts per core-second, and what a million texts cost at a given price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .record import Comparison, Entry, Record
from .samples import quartiles, repetition_means
from .tables import Table, programs_in_order

_SECONDS_PER_HOUR = 3600
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CorePrice:
    """A price of processor time, as given by the reader of a report."""

    per_core_hour: float
    """In any currency; a core is what the operating system counts, and what clouds sell as a vCPU."""
    source: str
    """Where and when the price was found."""

    def per_million_texts(self, texts_per_core_s: float) -> float:
        """Return the price of a million texts at full load."""
        return self.per_core_hour / _SECONDS_PER_HOUR / texts_per_core_s * _MILLION


def texts_per_core_s(entry: Entry, comparison: Comparison, cores: int) -> float:
    """Return the median throughput by core, of the `cores` that the run had, whether the program used them or not."""
    median_s = quartiles(repetition_means(entry.walls_s, comparison.workload.passes)).median
    return comparison.workload.texts / median_s / cores


def core_seconds_table(record: Record) -> Table:
    """Tabulate texts per core-second by program and workload; without rows for a GPU."""
    return _table("texts per core-second", record, _plain)


def cost_table(record: Record, price: CorePrice) -> Table:
    """Tabulate the cost of a million texts by program and workload; without rows for a GPU."""
    return _table("cost per million texts", record, lambda speed: _plain(price.per_million_texts(speed)))


def price_line(price: CorePrice) -> str:
    """Describe the price that a table of costs is made with."""
    return f"cost at {price.per_core_hour:g} per core-hour ({price.source})"


def _table(title: str, record: Record, cell: Callable[[float], str]) -> Table:
    comparisons: Sequence[Comparison] = () if record.environment.gpu else record.comparisons

    def speed_cell(program: str, comparison: Comparison) -> str:
        entry = next((entry for entry in comparison.entries if entry.program == program), None)
        return "-" if entry is None else cell(texts_per_core_s(entry, comparison, record.environment.threads))

    rows = [
        (program, *(speed_cell(program, each) for each in comparisons)) for program in programs_in_order(comparisons)
    ]
    return Table((title, *(each.workload.name for each in comparisons)), tuple(rows))


def _plain(value: float) -> str:
    """Render with three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
