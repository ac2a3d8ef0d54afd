"""Records → text: percentiles, spreads and ratios, each ratio within one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .record import Entry, Record, Round
from .samples import Spread, paired_ratio, percentiles, repetition_means, spread

OURS = "qwen3-triton"
"""What the names of this project's programs begin with."""
_TOP_OPERATORS = 6


class EnvironmentsDiffer(Exception):
    """Records of different machines, thread counts or versions stand side by side."""


def render_report(records: Sequence[Record]) -> str:
    """A table for each record; raises EnvironmentsDiffer where they were not measured alike."""
    require_one_environment(records)
    return "\n\n".join(render_record(record) for record in records)


def render_record(record: Record) -> str:
    """Head, and a table for each workload of one run."""
    return "\n\n".join([_head(record), *(_render_round(each) for each in record.rounds)])


def ours_first(entries: Sequence[Entry]) -> list[Entry]:
    """This project's entries, the fastest first, then the others likewise."""
    return sorted(entries, key=lambda entry: (not is_ours(entry.program), spread(entry.walls_s).median))


def is_ours(program: str) -> bool:
    """Whether a program is this project's."""
    return program.startswith(OURS)


def ratio_to(entry: Entry, baseline: Entry, passes: int) -> Spread:
    """How many times as long as `baseline` `entry` took, repetition by repetition."""
    return paired_ratio(repetition_means(entry.walls_s, passes), repetition_means(baseline.walls_s, passes))


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


def align(lines: Sequence[Sequence[str]]) -> str:
    """A plain table, the first two columns to the left and figures to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = []
    for line in lines:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        aligned.append("  ".join(cells).rstrip())
    return "\n".join(aligned)


def _head(record: Record) -> str:
    place, code = record.environment, record.code
    commit = (code.commit or "no commit")[:12] + (", modified" if code.modified else "")
    return (
        f"{record.started} ({commit})\n"
        f"{place.cpu}, {place.threads} threads on {place.cores} cores, Python {place.python}, "
        f"onnxruntime {place.packages['onnxruntime']}, torch {place.packages['torch']}"
    )


def _render_round(measured: Round) -> str:
    work, shape, loads = measured.workload, measured.workload.shape, measured.load_average
    lengths = f"{work.shortest} to {work.longest}" if work.texts > 1 else "one text"
    head = (
        f"{work.name}: {work.texts} texts, {work.tokens} tokens ({lengths}); {shape['layers']} layers, hidden "
        f"{shape['hidden']}, vocabulary {shape['vocabulary']}; load {min(loads)} to {max(loads)}"
    )
    absent = [f"absent: {name}: {why}" for name, why in measured.absent.items()]
    return "\n".join([head, _table(measured), *absent, _products(measured), *_profile(measured)])


def _table(measured: Round) -> str:
    entries = ours_first(measured.entries)
    baseline = next((entry for entry in entries if is_ours(entry.program)), None)
    ratio_head = f"times {baseline.program}" if baseline else "ratio"
    head = ("program", "setting", "tokens/s", "texts/s", "p50 ms", "p95", "p99", "cpu ms")
    lines: list[tuple[str, ...]] = [(*head, ratio_head, "quartiles", "min cosine", "in company")]
    for entry in entries:
        times = percentiles(entry.walls_s)
        middle = spread(repetition_means(entry.walls_s, measured.workload.passes)).median
        cpu = spread([sample.cpu_s for sample in entry.samples]).median
        ratio = ratio_to(entry, baseline, measured.workload.passes) if baseline else None
        lines.append(
            (
                entry.program,
                entry.setting,
                f"{measured.workload.tokens / middle:,.0f}",
                f"{measured.workload.texts / middle:,.1f}",
                *(f"{seconds * 1e3:,.1f}" for seconds in (times.p50, times.p95, times.p99, cpu)),
                f"{ratio.median:.2f}" if ratio else "-",
                f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio else "-",
                f"{entry.min_cosine:.7f}",
                "-" if entry.company_cosine is None else f"{entry.company_cosine:.7f}",
            )
        )
    return align(lines)


def _products(measured: Round) -> str:
    rates = ", ".join(
        f"{gauge.program} {rate.median:,.0f} ({rate.low:,.0f} to {rate.high:,.0f})"
        for gauge in measured.products
        for rate in [spread([gauge.flops / sample.wall_s / 1e9 for sample in gauge.samples])]
    )
    return f"matrix products alone, GFLOP/s: {rates}"


def _profile(measured: Round) -> list[str]:
    lines = []
    for program, operators in measured.profile.items():
        total = sum(operators.values())
        top = sorted(operators.items(), key=lambda item: -item[1])[:_TOP_OPERATORS]
        shares = ", ".join(f"{name} {100 * spent / total:.1f} %" for name, spent in top)
        lines.append(f"{program} spends: {shares}")
    return lines
