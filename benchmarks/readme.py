"""The README's performance section out of a record: who is how fast, where, and by which command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import plot_names
from .record import Record
from .record_file import read_record
from .tables import OURS, machine_line, model_line, peers_table

BEGIN, END = "<!-- performance: written by `python -m benchmarks report --readme` -->", "<!-- performance ends -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What the section points to, as the README names it."""

    plots: Path
    """A folder."""
    page: Path
    """The page with everything else that the record holds."""


class NoSection(Exception):
    """The README has no place for the figures, or the record has none of them."""


def newest_whole_record(folder: Path) -> Path:
    """The last record in `folder` that compares contenders, loads a server and measures quality; raises NoSection."""
    for file in sorted(folder.glob("*.json"), reverse=True):
        record = read_record(file)
        if record.rounds and record.loads and record.quality:
            return file
    raise NoSection("no record of a whole run yet; run: python -m benchmarks run")


def put_section(readme: str, section: str) -> str:
    """`readme` with what stands between the markers replaced; raises NoSection."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoSection(f"README.md has no lines '{BEGIN}' and '{END}' to write between")
    return f"{before}{BEGIN}\n{section}\n{END}{after}"


def render_section(record: Record, links: Links) -> str:
    """Return the machine, the table of programs and workloads, and a plot; raise NoSection."""
    if not record.rounds:
        raise NoSection(f"the record of {record.started} compares no contenders; run: python -m benchmarks run")
    first = record.rounds[0]
    parts = [
        f"Tokens per second in one run on {machine_line(record)}: {model_line(first)}, seeded random weights, "
        f"{len(first.load_average)} repetitions, every program at its best setting and checked against transformers "
        f"fp32 first. In brackets: times as long as {OURS} at its fastest (median of paired repetitions).",
        peers_table(record.rounds).markdown(),
        f"![tokens per second by program]({links.plots / plot_names.PEERS}.svg)",
        f"A dash: failed, or outside the accuracy limits. [{links.page}]({links.page}) has the workloads, the reasons, "
        "latencies and throughput through Triton, quality by precision, growth, and the method.",
    ]
    return "\n\n".join(parts)
