"""Renders the README's performance section from a record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import plot_names
from .record import Record
from .record_file import read_record, record_files
from .tables import OURS, machine_line, model_line, peers_table

BEGIN, END = "<!-- performance: written by `python -m benchmarks report --readme` -->", "<!-- performance ends -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Link targets of the section, relative to the README."""

    plots: Path
    """Folder of the plots."""
    page: Path
    """Page with all other results of the record."""


class MissingSectionError(Exception):
    """The README has no markers for the section, or there is no record with the required results."""


def newest_complete_record(folder: Path) -> Path:
    """Return the newest record that compares contenders, loads a server and measures quality.

    Raises:
        MissingSectionError: if there is none in `folder`.
    """
    for file in reversed(record_files(folder)):
        record = read_record(file)
        if record.comparisons and record.loads and record.quality:
            return file
    raise MissingSectionError("there is no record of a complete run yet; run: python -m benchmarks run")


def replace_section(readme: str, section: str) -> str:
    """Return `readme` with the text between the markers replaced by `section`.

    Raises:
        MissingSectionError: if a marker is missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise MissingSectionError(f"README.md lacks the markers '{BEGIN}' and '{END}'")
    return f"{before}{BEGIN}\n{section}\n{END}{after}"


def render_section(record: Record, links: Links) -> str:
    """Render the machine, the throughput of every program on every workload, and a plot as Markdown.

    Raises:
        MissingSectionError: if the record compares no contenders.
    """
    if not record.comparisons:
        raise MissingSectionError(
            f"the record of {record.started} compares no contenders; run: python -m benchmarks run"
        )
    first = record.comparisons[0]
    parts = [
        f"Tokens per second in one run on {machine_line(record)}. The model has {model_line(first)} and "
        f"random weights with a fixed seed. Every program runs {len(first.load_average)} repetitions at its fastest "
        f"setting, after its outputs were checked against transformers fp32. In brackets: its time relative to the "
        f"fastest {OURS} variant (median of paired repetitions).",
        peers_table(record.comparisons).to_markdown(),
        f"![tokens per second by program]({links.plots / plot_names.PEERS}.svg)",
        f"A dash means that the program failed or missed the accuracy limits. [{links.page}]({links.page}) has the "
        "workloads, the reasons, throughput and latency through Triton, quality by precision, scaling, and the method.",
    ]
    return "\n\n".join(parts)
