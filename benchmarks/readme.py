"""The README's performance section out of a record."""

from __future__ import annotations

from pathlib import Path

from .record import Record, Round, read_record
from .tables import (
    OURS,
    best_products,
    code_line,
    is_ours,
    limits_table,
    loads_table,
    machine_line,
    model_line,
    ours_first,
    peers_table,
    quality_table,
    served_line,
    share_of_limit,
    workload_line,
)

BEGIN, END = "<!-- performance: written by `python -m benchmarks report --readme` -->", "<!-- performance ends -->"
PLOTS = ("throughput_by_peer.svg", "throughput_against_latency.svg")


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


def render_section(record: Record, plots: Path) -> str:
    """Machine, command, tables and two plots; `plots` is their folder as the README names it. Raises NoSection."""
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
        f"![tokens a second by program]({plots / PLOTS[0]})",
        *_limits(first),
    ]
    if record.loads:
        parts += [
            f"Through the local Triton, {served_line(record)} (in an open loop arrivals are Poisson and latency counts "
            "from the planned start):",
            loads_table(record.loads).markdown(),
            f"![texts a second against p99 latency]({plots / PLOTS[1]})",
        ]
    if record.quality:
        parts += [
            f"nDCG@10 of the {record.quality[0].model} through Triton at 32 to 256 components:",
            quality_table(record.quality).markdown(),
        ]
    parts += [f"Not done: {what}: {why}." for what, why in record.not_done.items()]
    return "\n\n".join(parts)


def _absent(record: Record) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for measured in record.rounds:
        for name, why in measured.absent.items():
            reasons.setdefault(f"{name}: {why}", []).append(measured.workload.name)
    return [f"Not measured on {', '.join(names)}: {reason.rstrip('.')}." for reason, names in reasons.items()]


def _limits(measured: Round) -> list[str]:
    """The products' rates, and which share of its limit each contender reaches."""
    if not best_products(measured):
        return []
    shares = [
        f"{entry.program} {share:.0%}"
        for entry in ours_first(measured.entries)
        for share in [share_of_limit(entry, measured)]
        if share is not None
    ]
    parts = [limits_table(measured).markdown()]
    if shares:
        parts.append(
            f"Share of {measured.workload.name} that the products needed would take at the best rate of the "
            f"contender's own precision: {', '.join(shares)}."
        )
    for program, operators in measured.profile.items():
        if is_ours(program):
            total = sum(operators.values())
            top = sorted(operators.items(), key=lambda item: -item[1])[:5]
            parts.append(f"{program} spends {', '.join(f'{spent / total:.0%} in {name}' for name, spent in top)}.")
    return parts
