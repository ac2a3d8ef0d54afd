"""The README's performance section out of a record: who is how fast, where, and by which command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import plot_names
from .record import Record
from .record_file import read_record
from .tables import OURS, code_line, machine_line, model_line, peers_table, served_line, workload_line

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
    """Machine, command, the table of programs and workloads, two plots; raises NoSection."""
    if not record.rounds:
        raise NoSection(f"the record of {record.started} compares no contenders; run: python -m benchmarks run")
    first = record.rounds[0]
    parts = [
        f"`{record.command}` on {machine_line(record)}; {code_line(record)}; {model_line(first)}, seeded random "
        f"weights, {len(first.load_average)} repetitions with the contenders in changing order. Each contender runs in "
        "a process of its own at the best setting that a scan before the timed rounds found; every contender's vectors "
        "were compared with transformers fp32 first, so optimum's fp32 export is an independent witness of this graph.",
        f"Tokens a second; in brackets how many times as long as {OURS} at its fastest (median of paired repetitions):",
        peers_table(record.rounds).markdown(),
        "; ".join(workload_line(measured) for measured in record.rounds) + ".",
        *_absent(record),
        f"![tokens a second by program]({links.plots / plot_names.PEERS}.svg)",
    ]
    if record.loads:
        parts += [
            f"Through the local Triton, {served_line(record)}; in an open loop arrivals are Poisson and latency counts "
            "from the planned start:",
            f"![texts a second against p99 latency]({links.plots / plot_names.LATENCY}.svg)",
        ]
    parts.append(
        f"[{links.page}]({links.page}) has the rest: settings, latencies, spreads and cosines of every contender, the "
        "rates of matrix products alone and which share of them each reaches, where the time goes by operator, every "
        "load on the server, quality by precision and dimension, growth, and what could not be measured."
    )
    return "\n\n".join(parts)


def _absent(record: Record) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for measured in record.rounds:
        for name, why in measured.absent.items():
            reasons.setdefault(f"{name}: {why}", []).append(measured.workload.name)
    return [f"Not measured on {', '.join(names)}: {reason.rstrip('.')}." for reason, names in reasons.items()]
