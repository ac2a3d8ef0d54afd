"""Tables and summary lines of a record, shared by the terminal report and the Markdown pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen3_triton.client.manifest import Task

from .record import Comparison, Entry, ExportCost, LatencyCase, Load, QualityScore, Record, ScalingCurve, Soak
from .samples import (
    Quartiles,
    load_throughput,
    paired_ratio,
    percentiles,
    quartiles,
    repetition_means,
    successful_latencies,
)

OURS = "qwen3-triton"
"""Prefix of the names of this project's programs."""
_GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    """Leading columns with text, aligned left; the others contain numbers."""

    def to_text(self) -> str:
        """Render with columns aligned by spaces."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column < self.text_columns else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.header, *self.rows)
        )

    def to_markdown(self) -> str:
        """Render as a GitHub table."""
        rule = ["---" if column < self.text_columns else "---:" for column in range(len(self.header))]
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.header, rule, *self.rows))


def is_ours(program: str) -> bool:
    """Return whether a program is this project's."""
    return program.startswith(OURS)


def ours_first(entries: Sequence[Entry]) -> list[Entry]:
    """Sort this project's entries before the others, each group by speed."""
    return sorted(entries, key=lambda entry: (not is_ours(entry.program), quartiles(entry.walls_s).median))


def programs_in_order(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the programs of all comparisons, this project's first."""
    return list(dict.fromkeys(entry.program for comparison in comparisons for entry in ours_first(comparison.entries)))


def baseline(comparison: Comparison) -> Entry | None:
    """Return this project's fastest entry, the denominator of all ratios."""
    return next((entry for entry in ours_first(comparison.entries) if is_ours(entry.program)), None)


def tokens_per_s(entry: Entry, comparison: Comparison) -> float:
    """Return the median throughput of an entry."""
    return comparison.workload.tokens / _median_s(entry, comparison)


def ratio_to(entry: Entry, other: Entry, passes: int) -> Quartiles:
    """Return the quartiles of the time of `entry` relative to `other`, by repetition."""
    return paired_ratio(repetition_means(entry.walls_s, passes), repetition_means(other.walls_s, passes))


def peak_flops_per_s(comparison: Comparison) -> dict[str, float]:
    """Return the FLOP/s of the fastest matmul library, by precision."""
    best: dict[str, float] = {}
    for probe in comparison.matmuls:
        precision = probe.program.split()[-1]
        rate = probe.flops / quartiles([sample.wall_s for sample in probe.samples]).median
        best[precision] = max(best.get(precision, 0.0), rate)
    return best


def fraction_of_peak(entry: Entry, comparison: Comparison) -> float | None:
    """Return the FLOP/s that an entry needs relative to the machine's peak; None if unknown."""
    peak, needed = peak_flops_per_s(comparison).get(entry.arithmetic), comparison.workload.needed_flops
    if peak is None or needed is None:
        return None
    return needed / peak / _median_s(entry, comparison)


def speed_table(comparison: Comparison) -> Table:
    """Tabulate all contenders on one workload."""
    workload, best = comparison.workload, baseline(comparison)
    rows = []
    for entry in ours_first(comparison.entries):
        times, speed = percentiles(entry.walls_s), tokens_per_s(entry, comparison)
        ratio = ratio_to(entry, best, workload.passes) if best else None
        fraction = fraction_of_peak(entry, comparison)
        rows.append(
            (
                entry.program,
                entry.setting,
                f"{speed:,.0f}",
                f"{speed * workload.texts / workload.tokens:,.1f}",
                *(f"{seconds * 1e3:,.1f}" for seconds in (times.p50, times.p95, times.p99)),
                f"{quartiles([sample.cpu_s for sample in entry.samples]).median * 1e3:,.1f}",
                f"{ratio.median:.2f}" if ratio else "-",
                f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio else "-",
                "-" if fraction is None else f"{fraction:.0%}",
                _parity_cell(entry.min_cosine, entry.max_score_error),
                _parity_cell(entry.batched_cosine, entry.batched_score_error),
            )
        )
    header = ("program", "setting", "tokens/s", "texts/s", "p50 ms", "p95 ms", "p99 ms", "cpu ms")
    ratio_header = f"time vs {best.program}" if best else "ratio"
    parity = "min cosine" if workload.task is Task.EMBED else "score error"
    return Table((*header, ratio_header, "spread", "of peak", parity, "batched"), tuple(rows), 2)


def _parity_cell(cosine: float | None, score_error: float | None) -> str:
    if cosine is not None:
        return f"{cosine:.7f}"
    return "-" if score_error is None else f"{score_error:.1e}"


def _median_s(entry: Entry, comparison: Comparison) -> float:
    return quartiles(repetition_means(entry.walls_s, comparison.workload.passes)).median


def peers_table(comparisons: Sequence[Comparison]) -> Table:
    """Tabulate tokens per second by program and workload, with the time relative to the baseline in brackets."""
    rows = [
        (program, *(_speed_cell(program, comparison) for comparison in comparisons))
        for program in programs_in_order(comparisons)
    ]
    return Table(("tokens/s", *(comparison.workload.name for comparison in comparisons)), tuple(rows))


def _speed_cell(program: str, comparison: Comparison) -> str:
    entry = next((entry for entry in comparison.entries if entry.program == program), None)
    best = baseline(comparison)
    if entry is None:
        return "-"
    speed = f"{tokens_per_s(entry, comparison):,.0f}"
    if best is None or entry is best:
        return speed
    return f"{speed} ({ratio_to(entry, best, comparison.workload.passes).median:.2f})"


def matmul_table(comparison: Comparison) -> Table:
    """Tabulate the matmul rates by library and precision."""
    rows = []
    for probe in comparison.matmuls:
        rate = quartiles([probe.flops / sample.wall_s / _GIGA for sample in probe.samples])
        rows.append((probe.program, f"{rate.median:,.0f}", f"{rate.low:,.0f} to {rate.high:,.0f}"))
    return Table(("matmuls alone", "GFLOP/s", "spread"), tuple(rows))


def memory_copy_table(comparison: Comparison) -> Table:
    """Tabulate the device's memory bandwidth, counting bytes read and bytes written."""
    rows = []
    for probe in comparison.memory_copies:
        rate = quartiles([probe.bytes / sample.wall_s / _GIGA for sample in probe.samples])
        rows.append((probe.program, f"{rate.median:,.0f}", f"{rate.low:,.0f} to {rate.high:,.0f}"))
    return Table(("memory copies alone", "GB/s", "spread"), tuple(rows))


def served_line(record: Record) -> str:
    """Summarise the served workload of a record that has loads."""
    info = record.served_tokenizer
    tokenizer = f", tokenizer with {info.vocabulary:,} ids (sha256 {info.sha256[:12]})" if info else ""
    return f"workload {record.loads[0].workload}, one text per request{tokenizer}"


def loads_table(loads: Sequence[Load]) -> Table:
    """Tabulate all loads; tokens/s assumes the mean length of the texts, which are sent round-robin."""
    rows = []
    for load in loads:
        times = percentiles(successful_latencies(load.repetitions))
        throughputs = [load_throughput(requests) for requests in load.repetitions]
        rate = quartiles([each.requests_per_s for each in throughputs])
        mean_tokens = sum(load.tokens) / len(load.tokens)
        rows.append(
            (
                load.program,
                load.driver,
                load_name(load),
                f"{rate.median:,.1f}",
                f"{rate.low:,.1f} to {rate.high:,.1f}",
                f"{rate.median * mean_tokens:,.0f}",
                *(f"{seconds * 1e3:,.1f}" for seconds in (times.p50, times.p95, times.p99)),
                f"{load.rows / load.executions:.1f}" if load.executions else "-",
                str(sum(each.failed for each in throughputs)),
            )
        )
    header = ("program", "driver", "load", "texts/s", "spread", "tokens/s", "p50 ms", "p95 ms", "p99 ms")
    return Table((*header, "rows per batch", "failed"), tuple(rows), 3)


def load_name(load: Load) -> str:
    """Describe the controlled variable of a load."""
    return f"{load.in_flight} in flight" if load.in_flight else f"{load.rate_per_s:.1f} arrivals/s"


def latency_table(cases: Sequence[LatencyCase]) -> Table:
    """Tabulate the latency of single texts, relative to the first case with the same load."""
    baselines = {case.load: case for case in reversed(cases)}
    rows = []
    for case in cases:
        latencies = successful_latencies(case.repetitions)
        times, ratio = percentiles(latencies), paired_ratio(_p99s(case), _p99s(baselines[case.load]))
        rows.append(
            (
                case.load,
                case.setting,
                *(f"{seconds * 1e3:,.1f}" for seconds in (times.p50, times.p95, times.p99, max(latencies))),
                f"{ratio.median:.2f}",
                f"{ratio.low:.2f} to {ratio.high:.2f}",
                f"{quartiles(case.bulk_texts_per_s).median:,.1f}" if case.bulk_texts_per_s else "-",
                str(sum(load_throughput(each).failed for each in case.repetitions)),
            )
        )
    header = ("load", "setting", "p50 ms", "p95 ms", "p99 ms", "max ms", "p99 vs first", "spread", "bulk texts/s")
    return Table((*header, "failed"), tuple(rows), 2)


def _p99s(case: LatencyCase) -> list[float]:
    return [percentiles(successful_latencies([requests])).p99 for requests in case.repetitions]


def soak_outcomes_table(soak: Soak) -> Table:
    """Tabulate what became of the requests of a soak."""
    return Table(
        ("requests", "outcome", "number"),
        tuple((*key.split(": ", 1), f"{count:,}") for key, count in soak.outcomes.items()),
        2,
    )


def soak_memory_table(soak: Soak) -> Table:
    """Tabulate the memory at the start of a soak, and its mean in each third."""
    third = max(1, len(soak.memory) // 3)
    thirds = [soak.memory[start : start + third] for start in (0, third, len(soak.memory) - third)]
    kinds = {"server": "server_mb", "backend": "backend_mb", "clients": "clients_mb"}
    rows = []
    for kind, name in kinds.items():
        means = [sum(getattr(sample, name) for sample in samples) / len(samples) for samples in thirds]
        rows.append(
            (kind, *(f"{mb:,.0f}" for mb in (getattr(soak.memory[0], name), *means)), f"{means[2] - means[1]:+.1f}")
        )
    header = ("memory in MB", "at the start", "first third", "second third", "last third", "last - second")
    return Table(header, tuple(rows))


def exports_table(exports: Sequence[ExportCost]) -> Table:
    """Tabulate time and memory of exports, and the time relative to copies of the checkpoint."""
    rows = [
        (
            export.setting,
            f"{export.checkpoint_bytes / 1e9:.2f}",
            "" if export.disk_read_bytes is None else f"{export.disk_read_bytes / 1e9:.2f}",
            f"{export.written_bytes / 1e9:.2f}",
            " / ".join(f"{copy_s:.1f}" for copy_s in export.copies_s),
            f"{export.wall_s:.1f}",
            f"{export.ratio:.1f}",
            f"{export.forward_s:.1f}",
            f"{export.cpu_s:.1f}",
            f"{export.peak_mb:,.0f}",
            f"{export.peak_allocated_mb:,.0f}",
            f"{export.load_average[0]} to {export.load_average[1]}",
        )
        for export in exports
    ]
    header = (
        "export",
        "checkpoint GB",
        "read from disk",
        "written GB",
        "cp s",
        "export s",
        "export / cp",
        "forward passes s",
        "CPU s",
        "peak MB",
        "of it allocated",
        "load average",
    )
    return Table(header, tuple(rows))


def quality_table(scores: Sequence[QualityScore]) -> Table:
    """Tabulate nDCG@10 by task, precision and dimension, and the cosines at the largest dimension."""
    dimensions = sorted({score.dimension for score in scores})
    found = {(score.task, score.precision, score.dimension): score for score in scores}
    rows = []
    for task, precision in dict.fromkeys((score.task, score.precision) for score in scores):
        full = found[task, precision, dimensions[-1]]
        ndcg = [f"{found[task, precision, dimension].ndcg_at_10:.4f}" for dimension in dimensions]
        rows.append((task, precision, *ndcg, f"{full.min_cosine:.6f}", f"{full.mean_cosine:.6f}"))
    header = ("task", "precision", *(str(dimension) for dimension in dimensions), "min cosine", "mean cosine")
    return Table(header, tuple(rows), 2)


def scaling_table(curves: Sequence[ScalingCurve]) -> Table:
    """Tabulate the median time at each size."""
    rows = [
        (
            curve.program,
            curve.variable.label,
            f"{point.size:g}",
            f"{quartiles([sample.wall_s for sample in point.samples]).median * 1e3:,.1f}",
        )
        for curve in curves
        for point in curve.points
    ]
    return Table(("program", "variable", "size", "ms"), tuple(rows), 2)


def operators_table(comparison: Comparison, most: int = 6) -> Table:
    """Tabulate the `most` expensive operators of this project's programs."""
    rows = []
    for program, operators in comparison.profile_us.items():
        total = sum(operators.values())
        for name, spent_us in sorted(operators.items(), key=lambda item: -item[1])[:most]:
            rows.append((program, name, f"{spent_us / 1e3:,.1f}", f"{spent_us / total:.1%}"))
    return Table(("program", "operator", "ms", "share"), tuple(rows), 2)


def breakdown_tables(comparison: Comparison) -> list[Table]:
    """Return the tables of peak rates and operators for which the comparison has data."""
    tables = [matmul_table(comparison), memory_copy_table(comparison), operators_table(comparison)]
    return [table for table in tables if table.rows]


def machine_line(record: Record) -> str:
    """Summarise hardware, threads and versions."""
    environment = record.environment
    versions = ", ".join(
        f"{name} {environment.packages[name]}"
        for name in ("onnxruntime", "onnxruntime-gpu", "torch")
        if name in environment.packages
    )
    gpu = environment.gpu
    device = f"{gpu.name} ({gpu.memory_bytes / _GIGA:.0f} GB, driver {gpu.driver}, CUDA {gpu.cuda}), " if gpu else ""
    return (
        f"{device}{environment.cpu}, {environment.threads} threads on {environment.cores} cores, "
        f"Python {environment.python}, {versions}"
    )


def code_line(record: Record) -> str:
    """Summarise when the run was started and resumed, and with which commits."""
    times = [(record.started, record.code), *((each.started, each.code) for each in record.resumed)]
    return ", resumed ".join(
        f"{started} ({(code.commit or 'no commit')[:12]}{', modified' if code.modified else ''})"
        for started, code in times
    )


def model_line(comparison: Comparison) -> str:
    """Summarise the shape of the model."""
    shape = comparison.workload.shape
    return f"{shape['layers']} layers with hidden size {shape['hidden']}, a vocabulary of {shape['vocabulary']:,}"


def repetitions_line(comparisons: Sequence[Comparison]) -> str:
    """Return how often the programs were timed, such as '3 to 7 repetitions'."""
    counts = [len(comparison.load_average) for comparison in comparisons]
    return f"{min(counts)} to {max(counts)} repetitions" if len(set(counts)) > 1 else f"{counts[0]} repetitions"


def workload_line(comparison: Comparison) -> str:
    """Summarise the workload, including its name."""
    return f"{comparison.workload.name}: {workload_size(comparison)}"


def workload_size(comparison: Comparison) -> str:
    """Summarise the texts, their lengths and their total tokens, and a sample on which settings were ranked."""
    workload, scanned = comparison.workload, comparison.scanned_texts
    if workload.texts == 1:
        return f"1 text of {workload.tokens:,} tokens"
    texts = f"{workload.texts} texts"
    if workload.task is Task.RERANK:
        texts = f"1 query with {workload.texts} passages, rows"
    size = f"{texts} of {workload.shortest} to {workload.longest} tokens, {workload.tokens:,} tokens in total"
    return size if scanned in (None, workload.texts) else f"{size}; settings ranked on {scanned} of them"
