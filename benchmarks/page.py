"""A page with everything that a record holds."""

from __future__ import annotations

from pathlib import Path

from . import plot_names
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
    workload_size,
)


def render_page(record: Record, *, name: str, plots: Path) -> str:
    """Markdown; `name` is the record's file, `plots` their folder as the page names it."""
    parts = [
        "# Performance",
        f"Everything in the record `{name}`, written by `python -m benchmarks report --readme`; "
        "[benchmarks/results](../benchmarks/results/README.md) tells how a run goes and how to read its tables.",
        f"`{record.command}` on {machine_line(record)}; {code_line(record)}.",
    ]
    if record.rounds:
        parts += [
            "## By workload",
            f"{model_line(record.rounds[0])}, seeded random weights.",
            _image("tokens a second by program", plots, plot_names.PEERS),
        ]
        parts += [part for measured in record.rounds for part in _round(measured)]
    if record.loads:
        parts += [
            "## Through Triton",
            f"{served_line(record)}. In an open loop arrivals are Poisson and latency counts from the planned start.",
            _image("texts a second against p99 latency", plots, plot_names.LATENCY),
            _image("texts a second against requests in flight", plots, plot_names.CLIENTS),
            loads_table(record.loads).markdown(),
        ]
    if record.quality:
        parts += [
            "## Quality",
            f"nDCG@10 of the {record.quality[0].model} through Triton, by components of a vector.",
            _image("nDCG@10 against bytes a vector", plots, plot_names.QUALITY),
            quality_table(record.quality).markdown(),
        ]
    if record.growth:
        sizes = dict.fromkeys(growth.of for growth in record.growth)
        parts += ["## Growth", *(_image(f"time against {of}", plots, plot_names.growth(of)) for of in sizes)]
        parts.append(growth_table(record.growth).markdown())
    if record.not_done:
        parts += ["## Not done", "\n".join(f"- {what}: {why.rstrip('.')}." for what, why in record.not_done.items())]
    return "\n\n".join(parts) + "\n"


def _image(what: str, plots: Path, name: str) -> str:
    return f"![{what}]({plots / name}.svg)"


def _round(measured: Round) -> list[str]:
    loads = measured.load_average
    return [
        f"### {measured.workload.name}",
        f"{workload_size(measured)}; load average {min(loads)} to {max(loads)}.",
        speed_table(measured).markdown(),
        *(f"Not measured: {name}: {why.rstrip('.')}." for name, why in measured.absent.items()),
        *(table.markdown() for table in gauge_tables(measured)),
    ]
