"""Renders the README's performance section."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import plot_names
from .publication import Publication
from .tables import OURS, machine_line, model_line, peers_table, repetitions_line

BEGIN, END = "<!-- performance: written by `python -m benchmarks report --readme` -->", "<!-- performance ends -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Link targets of the section, relative to the README."""

    plots: Path
    """Folder of the plots."""
    page: Path
    """Page with all other results of the record."""


class MissingSectionError(Exception):
    """The README has no markers for the section."""


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


def render_section(publication: Publication, links: Links) -> str:
    """Render the throughput of every program on the whole model as Markdown: a table for each processor, and a plot."""
    model = model_line(publication.whole[0].comparisons[0])
    parts = [
        f"Tokens per second of the whole model: {model} and random weights with a fixed seed. Every program runs at "
        "its fastest setting, after its outputs were checked against transformers fp32. In brackets: its time relative "
        f"to the fastest {OURS} variant (median of paired repetitions).",
    ]
    for each in publication.whole:
        parts += [
            f"On {machine_line(each.newest.record)}; {repetitions_line(each.comparisons)}, all programs of a workload "
            "in one run:",
            peers_table(each.comparisons).to_markdown(),
        ]
    parts += [
        f"![tokens per second by program]({links.plots / plot_names.PEERS}.svg)",
        "A dash means that the program failed, missed the accuracy limits or was not in the run. "
        f"[{links.page}]({links.page}) has the workloads, the reasons, more programs on four of the layers, throughput "
        "and latency through Triton, quality by precision, scaling, and the method.",
    ]
    return "\n\n".join(parts)
