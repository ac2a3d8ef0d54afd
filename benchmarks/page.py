"""Renders docs/performance.md, the page with all published results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from . import plot_names
from .client.tables import client_line, client_sections
from .cost import core_seconds_table
from .publication import Publication, PublishedRecord, WholeModel
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
    repetitions_line,
    scaling_table,
    served_line,
    soak_memory_table,
    soak_outcomes_table,
    speed_table,
    workload_size,
)


def render_page(publication: Publication, *, plots: Path) -> str:
    """Render the page as Markdown.

    Args:
        publication: the records to render.
        plots: folder of the plots, relative to the page.
    """
    parts = [
        "# Performance",
        "All results of the records that are named below, written by `python -m benchmarks report --readme`. "
        "[benchmarks/results](../benchmarks/results/README.md) describes the method and how to read the tables.",
        "## The whole model",
        _image("tokens per second by program", plots, plot_names.PEERS),
        *(part for each in publication.whole for part in _render_whole(each)),
        *_render_complete(publication.complete, plots),
        *_render_client(publication.client),
    ]
    return "\n\n".join(parts) + "\n"


def _render_whole(whole: WholeModel) -> list[str]:
    return [
        f"### {whole.newest.record.environment.cpu}",
        *map(_source_line, whole.records),
        f"{model_line(whole.comparisons[0])}, random weights with a fixed seed; {repetitions_line(whole.comparisons)}.",
        *(part for comparison in whole.comparisons for part in _render_comparison(comparison, "####")),
        *_render_core_seconds(dataclasses.replace(whole.newest.record, comparisons=whole.comparisons), "####"),
        *(f"Not measured: {what}: {reason.rstrip('.')}." for what, reason in whole.not_measured.items()),
    ]


def _source_line(published: PublishedRecord) -> str:
    record = published.record
    return f"Record `{published.file.name}`: `{record.command}` on {machine_line(record)}; {code_line(record)}."


def _render_core_seconds(record: Record, heading: str) -> list[str]:
    speeds = core_seconds_table(record)
    if not speeds.rows:
        return []
    return [
        f"{heading} Texts per core-second",
        "Median throughput divided by the threads of the run. `python -m benchmarks report --price-per-core-hour` "
        "turns it into the cost of a million texts.",
        speeds.to_markdown(),
    ]


def _render_complete(published: PublishedRecord, plots: Path) -> list[str]:
    """Render all parts of a run, whose model may be a part of the whole one."""
    record = published.record
    layers = record.comparisons[0].workload.shape["layers"]
    parts = [
        f"## {layers} layers: all programs, serving, quality and scaling",
        _source_line(published),
        f"{model_line(record.comparisons[0])}, random weights with a fixed seed: the quick setting for development.",
        *(part for comparison in record.comparisons for part in _render_comparison(comparison, "###")),
        *_render_core_seconds(record, "###"),
    ]
    if record.loads:
        parts += [
            "### Through Triton",
            f"Served: {served_line(record)}. In an open loop, arrivals follow a Poisson process and latency is "
            "measured from the scheduled start.",
            _image("texts per second against p99 latency", plots, plot_names.LATENCY),
            _image("texts per second against requests in flight", plots, plot_names.CLIENTS),
            loads_table(record.loads).to_markdown(),
        ]
    if record.overload:
        parts += [
            "### Overload",
            "Latency of single texts with limits and priorities in Triton's queue, and beside a bulk job; "
            "[Serving](serving.md#overload) explains the settings.",
            latency_table(record.overload).to_markdown(),
        ]
    if record.batching:
        parts += [
            "### Token budgets",
            "Latency of single texts by the token budget of a batch, in an open loop; 'one text' is a queue without "
            "batches.",
            latency_table(record.batching).to_markdown(),
        ]
    if record.soak and record.soak.memory:
        minutes = record.soak.duration_s / 60
        parts += [
            "### Soak",
            f"{minutes:.0f} minutes of queries, a bulk job, new connections, raw requests with invalid ids, and "
            f"abandoned requests at the same time, in {record.soak.precision}. Memory is what processes have "
            "allocated; the backend is the process that computes the model.",
            soak_memory_table(record.soak).to_markdown(),
            soak_outcomes_table(record.soak).to_markdown(),
        ]
    if record.exports:
        parts += [
            "### Export",
            "Exports without verification, each between two copies of its checkpoint with `cp` to the same disk. "
            "Forward passes, of the survey of activations for fp16 and of calibration for int8, are a column of their "
            "own. Peak memory is the resident memory of the process, with mapped files.",
            exports_table(record.exports).to_markdown(),
        ]
    if record.quality:
        parts += [
            "### Quality",
            f"nDCG@10 of the model '{record.quality[0].model}' through Triton, by embedding dimension.",
            _image("nDCG@10 against bytes per embedding", plots, plot_names.QUALITY),
            quality_table(record.quality).to_markdown(),
        ]
    if record.scaling:
        variables = dict.fromkeys(curve.variable for curve in record.scaling)
        parts += [
            "### Scaling",
            *(_image(f"time against {each.label}", plots, plot_names.scaling(each)) for each in variables),
            scaling_table(record.scaling).to_markdown(),
        ]
    if record.not_measured:
        items = (f"- {what}: {reason.rstrip('.')}." for what, reason in record.not_measured.items())
        parts += ["### Not measured", "\n".join(items)]
    return parts


def _render_client(published: PublishedRecord | None) -> list[str]:
    """Render the measurements of the clients."""
    if published is None or published.record.client is None:
        return []
    parts = (
        part for each in client_sections(published.record) for part in (f"### {each.title}", each.text, each.table)
    )
    return [
        "## The clients",
        _source_line(published),
        f"Served: {client_line(published.record.client)}.",
        *(part if isinstance(part, str) else part.to_markdown() for part in parts),
    ]


def _image(alt: str, plots: Path, name: str) -> str:
    return f"![{alt}]({plots / name}.svg)"


def _render_comparison(comparison: Comparison, heading: str) -> list[str]:
    loads = comparison.load_average
    return [
        f"{heading} {comparison.workload.name}",
        f"{workload_size(comparison)}; load average {min(loads)} to {max(loads)}.",
        speed_table(comparison).to_markdown(),
        *(f"Not measured: {name}: {reason.rstrip('.')}." for name, reason in comparison.not_measured.items()),
        *(table.to_markdown() for table in breakdown_tables(comparison)),
    ]
