"""Records → tables of text cells, the same for the terminal and for the README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .record import Entry, Growth, Load, QualityScore, Record, Round
from .samples import Spread, answered_latencies, load_speed, paired_ratio, percentiles, repetition_means, spread

OURS = "qwen3-triton"
"""What the names of this project's programs begin with."""
_GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Table:
    """Head and lines; `words` columns from the left hold words, the others figures."""

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    words: int = 1

    def text(self) -> str:
        """Aligned with spaces."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place < self.words else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in (self.head, *self.lines)
        )

    def markdown(self) -> str:
        """As GitHub draws it."""
        rule = ["---" if place < self.words else "---:" for place in range(len(self.head))]
        return "\n".join(f"| {' | '.join(line)} |" for line in (self.head, rule, *self.lines))


def is_ours(program: str) -> bool:
    """Whether a program is this project's."""
    return program.startswith(OURS)


def ours_first(entries: Sequence[Entry]) -> list[Entry]:
    """This project's entries, the fastest first, then the others likewise."""
    return sorted(entries, key=lambda entry: (not is_ours(entry.program), spread(entry.walls_s).median))


def baseline(measured: Round) -> Entry | None:
    """Ours at its fastest, against which every other one is set."""
    return next((entry for entry in ours_first(measured.entries) if is_ours(entry.program)), None)


def tokens_per_s(entry: Entry, measured: Round) -> float:
    """Median over the repetitions."""
    return measured.workload.tokens / spread(repetition_means(entry.walls_s, measured.workload.passes)).median


def ratio_to(entry: Entry, other: Entry, passes: int) -> Spread:
    """How many times as long as `other` `entry` took, repetition by repetition."""
    return paired_ratio(repetition_means(entry.walls_s, passes), repetition_means(other.walls_s, passes))


def best_products(measured: Round) -> dict[str, float]:
    """Operations a second of the fastest library's products, by precision."""
    best: dict[str, float] = {}
    for gauge in measured.products:
        precision = gauge.program.split()[-1]
        rate = gauge.flops / spread([sample.wall_s for sample in gauge.samples]).median
        best[precision] = max(best.get(precision, 0.0), rate)
    return best


def share_of_limit(entry: Entry, measured: Round) -> float | None:
    """Share of the pass that the products needed would take at the machine's best rate; None where it is not known."""
    limit, needed = best_products(measured).get(entry.arithmetic), measured.workload.needed_flops
    if limit is None or needed is None:
        return None
    return needed / limit / spread(repetition_means(entry.walls_s, measured.workload.passes)).median


def speed_table(measured: Round) -> Table:
    """Every contender on one workload."""
    work, best = measured.workload, baseline(measured)
    lines = []
    for entry in ours_first(measured.entries):
        times, speed = percentiles(entry.walls_s), tokens_per_s(entry, measured)
        ratio = ratio_to(entry, best, work.passes) if best else None
        share = share_of_limit(entry, measured)
        lines.append(
            (
                entry.program,
                entry.setting,
                f"{speed:,.0f}",
                f"{speed * work.texts / work.tokens:,.1f}",
                *(f"{seconds * 1e3:,.1f}" for seconds in (times.p50, times.p95, times.p99)),
                f"{spread([sample.cpu_s for sample in entry.samples]).median * 1e3:,.1f}",
                f"{ratio.median:.2f}" if ratio else "-",
                f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio else "-",
                "-" if share is None else f"{share:.0%}",
                *_agreement_cells(entry),
            )
        )
    head = ("program", "setting", "tokens/s", "texts/s", "p50 ms", "p95 ms", "p99 ms", "cpu ms")
    ratio_head = f"times {best.program}" if best else "ratio"
    agreement = "min cosine" if work.task == "embed" else "score error"
    return Table((*head, ratio_head, "quartiles", "of limit", agreement, "in company"), tuple(lines), 2)


def _agreement_cells(entry: Entry) -> tuple[str, str]:
    """With the reference, and alone with in company."""
    cosines, errors = (entry.min_cosine, entry.company_cosine), (entry.max_score_error, entry.company_score_error)
    exact, company = (
        f"{cosine:.7f}" if cosine is not None else f"{error:.1e}" if error is not None else "-"
        for cosine, error in zip(cosines, errors, strict=True)
    )
    return exact, company


def peers_table(rounds: Sequence[Round]) -> Table:
    """Tokens a second of every program on every workload, and how many times ours at its fastest that is slower."""
    programs = list(dict.fromkeys(entry.program for measured in rounds for entry in ours_first(measured.entries)))
    lines = [(program, *(_speed_cell(program, measured) for measured in rounds)) for program in programs]
    return Table(("tokens/s", *(measured.workload.name for measured in rounds)), tuple(lines))


def _speed_cell(program: str, measured: Round) -> str:
    entry = next((entry for entry in measured.entries if entry.program == program), None)
    best = baseline(measured)
    if entry is None:
        return "-"
    if best is None or entry is best:
        return f"{tokens_per_s(entry, measured):,.0f}"
    return f"{tokens_per_s(entry, measured):,.0f} ({ratio_to(entry, best, measured.workload.passes).median:.2f})"


def limits_table(measured: Round) -> Table:
    """The machine's best matrix products by library and precision."""
    lines = []
    for gauge in measured.products:
        rate = spread([gauge.flops / sample.wall_s / _GIGA for sample in gauge.samples])
        lines.append((gauge.program, f"{rate.median:,.0f}", f"{rate.low:,.0f} to {rate.high:,.0f}"))
    return Table(("matrix products alone", "GFLOP/s", "quartiles"), tuple(lines))


def copies_table(measured: Round) -> Table:
    """What the device's memory gives, bytes read and written."""
    lines = []
    for gauge in measured.copies:
        rate = spread([gauge.bytes / sample.wall_s / _GIGA for sample in gauge.samples])
        lines.append((gauge.program, f"{rate.median:,.0f}", f"{rate.low:,.0f} to {rate.high:,.0f}"))
    return Table(("memory copies alone", "GB/s", "quartiles"), tuple(lines))


def served_line(record: Record) -> str:
    """What the server was loaded with; the record has loads."""
    given = record.served_tokenizer
    tokenizer = f", a tokenizer of {given.vocabulary:,} ids (sha256 {given.sha256[:12]})" if given else ""
    return f"{record.loads[0].workload}, one text a request{tokenizer}"


def loads_table(loads: Sequence[Load]) -> Table:
    """Every load on the server; tokens are those of the workload's texts, which are sent in turn."""
    lines = []
    for load in loads:
        times = percentiles(answered_latencies(load.repetitions))
        speeds = [load_speed(requests) for requests in load.repetitions]
        rate = spread([speed.requests_per_s for speed in speeds])
        mean_tokens = sum(load.tokens) / len(load.tokens)
        lines.append(
            (
                load.program,
                load.driver,
                load_name(load),
                f"{rate.median:,.1f}",
                f"{rate.low:,.1f} to {rate.high:,.1f}",
                f"{rate.median * mean_tokens:,.0f}",
                *(f"{seconds * 1e3:,.1f}" for seconds in (times.p50, times.p95, times.p99)),
                f"{load.rows / load.executions:.1f}" if load.executions else "-",
                str(sum(speed.failed for speed in speeds)),
            )
        )
    head = ("program", "driver", "load", "texts/s", "quartiles", "tokens/s", "p50 ms", "p95 ms", "p99 ms")
    return Table((*head, "rows a batch", "failed"), tuple(lines), 3)


def load_name(load: Load) -> str:
    """What was kept constant."""
    return f"{load.in_flight} in flight" if load.in_flight else f"{load.rate_per_s:.1f} arrivals/s"


def quality_table(scores: Sequence[QualityScore]) -> Table:
    """nDCG@10 by task and precision, a column a width, and the cosines at full width."""
    widths = sorted({score.dimension for score in scores})
    found = {(score.task, score.precision, score.dimension): score for score in scores}
    lines = []
    for task, precision in dict.fromkeys((score.task, score.precision) for score in scores):
        whole = found[task, precision, widths[-1]]
        figures = [f"{found[task, precision, width].ndcg_at_10:.4f}" for width in widths]
        lines.append((task, precision, *figures, f"{whole.min_cosine:.6f}", f"{whole.mean_cosine:.6f}"))
    head = ("task", "weights", *(str(width) for width in widths), "min cosine", "mean cosine")
    return Table(head, tuple(lines), 2)


def growth_table(growth: Sequence[Growth]) -> Table:
    """Median milliseconds of every size."""
    lines = [
        (each.program, each.of, f"{point.size:g}", f"{spread([s.wall_s for s in point.samples]).median * 1e3:,.1f}")
        for each in growth
        for point in each.points
    ]
    return Table(("program", "size of", "size", "ms"), tuple(lines), 2)


def operators_table(measured: Round, most: int = 6) -> Table:
    """Where our time goes: the operators that take the most of it."""
    lines = []
    for program, operators in measured.profile.items():
        total = sum(operators.values())
        for name, spent in sorted(operators.items(), key=lambda item: -item[1])[:most]:
            lines.append((program, name, f"{spent / 1e3:,.1f}", f"{spent / total:.1%}"))
    return Table(("program", "operator", "ms", "share"), tuple(lines), 2)


def gauge_tables(measured: Round) -> list[Table]:
    """What the machine gives, and where our time goes: those tables that the round has figures for."""
    tables = [limits_table(measured), copies_table(measured), operators_table(measured)]
    return [table for table in tables if table.lines]


def machine_line(record: Record) -> str:
    """Processor, threads and versions."""
    place = record.environment
    versions = ", ".join(
        f"{name} {place.packages[name]}"
        for name in ("onnxruntime", "onnxruntime-gpu", "torch")
        if name in place.packages
    )
    gpu = place.gpu
    on = (
        "" if gpu is None else f"{gpu.name} ({gpu.memory_bytes / _GIGA:.0f} GB, driver {gpu.driver}, CUDA {gpu.cuda}), "
    )
    return f"{on}{place.cpu}, {place.threads} threads on {place.cores} cores, Python {place.python}, {versions}"


def code_line(record: Record) -> str:
    """When, and of what."""
    times = [(record.started, record.code), *((each.started, each.code) for each in record.resumed)]
    return ", resumed ".join(
        f"{started} ({(code.commit or 'no commit')[:12]}{', modified' if code.modified else ''})"
        for started, code in times
    )


def model_line(measured: Round) -> str:
    """Which part of which model."""
    shape = measured.workload.shape
    return f"{shape['layers']} layers of hidden width {shape['hidden']}, vocabulary {shape['vocabulary']:,}"


def workload_line(measured: Round) -> str:
    """What was embedded or scored, by name."""
    return f"{measured.workload.name}: {workload_size(measured)}"


def workload_size(measured: Round) -> str:
    """Texts, their lengths and the tokens of all of them."""
    work = measured.workload
    lengths = f" of {work.shortest} to {work.longest} tokens" if work.texts > 1 else ""
    texts = "1 text" if work.texts == 1 else f"{work.texts} texts"
    if work.task == "rerank":
        texts = f"1 query with {work.texts} passages, rows"
    return f"{texts}{lengths}, {work.tokens:,} tokens"
