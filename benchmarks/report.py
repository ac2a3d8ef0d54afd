"""Records → text: medians, spreads and ratios, each ratio within one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from .contenders.ours import PROGRAM as OURS
from .record import Entry, Record
from .samples import Spread, paired_ratio, spread

_TOP_OPERATORS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BestSetting:
    """A program at its best, and how many times longer than ours it took."""

    entry: Entry
    ratio: Spread


class EnvironmentsDiffer(Exception):
    """Records of different machines, thread counts or versions stand side by side."""


def render_report(records: Sequence[Record]) -> str:
    """A table for each record; raises EnvironmentsDiffer where they were not measured alike."""
    _require_one_environment(records)
    return "\n\n".join(render_record(record) for record in records)


def render_record(record: Record) -> str:
    """Head, table, ratio to each program at its best, products and profile of one run."""
    parts = [_head(record), _table(record), *(f"absent: {name}: {why}" for name, why in record.absent.items())]
    return "\n".join([*parts, *_ratios(record), _products(record), *_profile(record)])


def best_against(record: Record, program: str, ours: Entry) -> BestSetting | None:
    """The setting of `program` that comes closest to `ours`; None where it was not measured."""
    settings = [
        BestSetting(entry=entry, ratio=paired_ratio(entry.walls_s, ours.walls_s))
        for entry in record.entries
        if entry.program == program
    ]
    return min(settings, key=lambda setting: setting.ratio.median, default=None)


def our_entry(record: Record) -> Entry | None:
    """This project's entry, against which every other one is set."""
    return next((entry for entry in record.entries if entry.program == OURS), None)


def _require_one_environment(records: Sequence[Record]) -> None:
    for other in records[1:]:
        pairs = dataclasses.asdict(records[0].environment), dataclasses.asdict(other.environment)
        differing = [name for name in pairs[0] if pairs[0][name] != pairs[1][name]]
        if differing:
            raise EnvironmentsDiffer(
                f"records of {records[0].started} and {other.started} differ in {', '.join(differing)}; "
                "report them one at a time"
            )


def _head(record: Record) -> str:
    work, place, code = record.workload, record.environment, record.code
    commit = (code.commit or "no commit")[:12] + (", modified" if code.modified else "")
    model = f"{work.shape['layers']} layers, hidden {work.shape['hidden']}, vocabulary {work.shape['vocabulary']}"
    loads = record.load_average
    return (
        f"{record.started} ({commit}): {work.name}, {work.texts} texts, {work.tokens} tokens "
        f"({work.shortest} to {work.longest}), {model}\n"
        f"{place.cpu}, {place.threads} threads on {place.cores} cores, load {min(loads)} to {max(loads)}, "
        f"onnxruntime {place.packages['onnxruntime']}, torch {place.packages['torch']}"
    )


def _table(record: Record) -> str:
    ours = our_entry(record)
    head = ("contender", "tokens/s", "ms median", "quartiles", "cpu ms", "times ours", "quartiles", "min cosine")
    lines = [head]
    for entry in record.entries:
        time = spread(entry.walls_s)
        cpu = spread([sample.cpu_s for sample in entry.samples])
        ratio = paired_ratio(entry.walls_s, ours.walls_s) if ours else None
        lines.append(
            (
                f"{entry.program}, {entry.setting}",
                f"{record.workload.tokens / time.median:,.0f}",
                f"{time.median * 1e3:,.1f}",
                f"{time.low * 1e3:,.1f} to {time.high * 1e3:,.1f}",
                f"{cpu.median * 1e3:,.1f}",
                f"{ratio.median:.2f}" if ratio else "-",
                f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio else "-",
                f"{entry.min_cosine:.8f}",
            )
        )
    return _align(lines)


def _align(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = []
    for line in lines:
        rest = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        aligned.append("  ".join([line[0].ljust(widths[0]), *rest]))
    return "\n".join(aligned)


def _ratios(record: Record) -> list[str]:
    """One line for each other program at its best setting."""
    ours = our_entry(record)
    lines = []
    for program in dict.fromkeys(entry.program for entry in record.entries if entry.program != OURS):
        best = best_against(record, program, ours) if ours else None
        if best is not None:
            lines.append(
                f"ratio: {OURS} is {best.ratio.median:.2f} times as fast as {program} at its best "
                f"({best.entry.setting}); quartiles {best.ratio.low:.2f} to {best.ratio.high:.2f}, "
                f"{len(best.entry.samples)} repetitions"
            )
    return lines


def _products(record: Record) -> str:
    rates = spread([record.products.flops / sample.wall_s / 1e9 for sample in record.products.samples])
    return f"matrix products alone: {rates.median:.1f} GFLOP/s ({rates.low:.1f} to {rates.high:.1f})"


def _profile(record: Record) -> list[str]:
    lines = []
    for program, operators in record.profile.items():
        total = sum(operators.values())
        top = sorted(operators.items(), key=lambda item: -item[1])[:_TOP_OPERATORS]
        shares = ", ".join(f"{name} {100 * spent / total:.1f} %" for name, spent in top)
        lines.append(f"{program} spends: {shares}")
    return lines
