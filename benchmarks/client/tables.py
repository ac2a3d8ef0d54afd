"""Tables of the part client, shared by the terminal report and the Markdown pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..record import Load, Record
from ..samples import Quartiles, load_throughput, paired_ratio, percentiles, quartiles, successful_latencies
from ..tables import Table
from .results import BulkSpeed, CallCost, ClientMeasurements, CpuTurns, ImportTime

_MICRO, _MILLI = 1e6, 1e3
_REFERENCE = "perf_analyzer"
"""First word of the driver with which the clients are compared."""
_COSTS = (
    "CPU time of all threads of the client's process for a short text, without tokenization: a call minus tokenizing "
    "the same texts, in turns. Another call comes before each of the two, so that both find the processor's caches as "
    "the server leaves them."
)
_BULK = (
    "`EmbeddingClient.embed_documents` with many texts, and then the same batches in an ONNX Runtime session without a "
    "server, with as many threads. `client / session` is the speed relative to the session, a product of two parts: "
    "`session / backend`, the time of the session relative to that in which the local server's backend, a stand-in in "
    "Python, computed; and `backend / client`, the latter relative to the time of the call. `input`, `output` and "
    "`tokenization` are relative to the time of the call too, and `queue ms` is the mean of a request."
)
_SINGLE = "One text a request in a closed loop. The clients tokenize; perf_analyzer sends token ids."
_IMPORT = "A new process with the import minus one that does nothing, in turns."


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table with its title and an explanation."""

    title: str
    text: str
    table: Table


def client_sections(record: Record) -> list[Section]:
    """Return a section for each kind of measurement that `record` has."""
    client = record.client
    if client is None:
        return []
    sections = [
        Section(title="Processor time", text=_COSTS, table=costs_table(client.costs)),
        Section(title="Bulk jobs", text=_BULK, table=bulk_table(client.bulk)),
        Section(title="Single texts", text=_SINGLE, table=single_texts_table(record.client_loads)),
        Section(title="Import", text=_IMPORT, table=import_table([client.imported] if client.imported else [])),
    ]
    return [section for section in sections if section.table.rows]


def client_line(client: ClientMeasurements) -> str:
    """Summarise the served model and the packages that the clients use."""
    shape = client.shape
    versions = ", ".join(f"{name} {version}" for name, version in client.versions.items())
    return (
        f"{client.precision}, {shape['layers']} layers with hidden size {shape['hidden']}, random weights with a fixed "
        f"seed; {versions}"
    )


def costs_table(costs: Sequence[CallCost]) -> Table:
    """Tabulate the processor time of a text by client and by texts of a call."""
    rows = []
    for cost in costs:
        with_tokenization = _microseconds(cost, lambda turns: sum(turns.calls_s))
        tokenization = _microseconds(cost, lambda turns: sum(turns.tokenizations_s))
        without = _microseconds(cost, lambda turns: sum(turns.calls_s) - sum(turns.tokenizations_s))
        rows.append(
            (
                cost.client,
                f"{cost.texts}",
                f"{cost.tokens / _texts(cost):.1f}",
                f"{cost.requests / cost.calls:.1f}",
                f"{with_tokenization.median:.1f}",
                f"{tokenization.median:.1f}",
                f"{without.median:.1f}",
                f"{without.low:.1f} to {without.high:.1f}",
            )
        )
    header = ("client", "texts a call", "tokens a text", "requests a call", "CPU µs a text", "tokenization")
    return Table((*header, "without it", "spread"), tuple(rows))


def _microseconds(cost: CallCost, seconds: Callable[[CpuTurns], float]) -> Quartiles:
    """Return the microseconds for each text, by repetition."""
    return quartiles([_MICRO * seconds(turns) / _texts(cost) for turns in cost.repetitions])


def _texts(cost: CallCost) -> int:
    """Return the texts of the measured calls of one repetition."""
    return cost.texts * len(cost.repetitions[0].calls_s)


def bulk_table(speeds: Sequence[BulkSpeed]) -> Table:
    """Tabulate the speed of a call with many texts relative to a session, and where the time of the call goes."""
    header = ("threads", "texts", "rows a batch", "session texts/s", "client texts/s", "client / session", "spread")
    parts = ("session / backend", "backend / client", "input", "output", "tokenization", "queue ms")
    return Table((*header, *parts), tuple(map(_bulk_row, speeds)), 0)


def _bulk_row(speed: BulkSpeed) -> tuple[str, ...]:
    servers = [each.server for each in speed.repetitions]
    calls = [each.client_wall_s for each in speed.repetitions]
    sessions = [each.session_wall_s for each in speed.repetitions]
    backend = [server.infer_s for server in servers]
    batches = sum(count.batches for server in servers for count in server.batches)
    ratio = paired_ratio(sessions, calls)
    return (
        f"{speed.threads}",
        f"{speed.texts:,}",
        f"{speed.texts * len(servers) / batches:.1f}",
        f"{speed.texts / quartiles(sessions).median:,.1f}",
        f"{speed.texts / quartiles(calls).median:,.1f}",
        f"{ratio.median:.1%}",
        f"{ratio.low:.1%} to {ratio.high:.1%}",
        _percent(sessions, backend),
        _percent(backend, calls),
        _percent([server.input_s for server in servers], calls),
        _percent([server.output_s for server in servers], calls),
        _percent([each.tokenization_wall_s for each in speed.repetitions], calls),
        f"{quartiles([_MILLI * server.queue_s / server.requests for server in servers]).median:,.1f}",
    )


def _percent(part_s: Sequence[float], whole_s: Sequence[float]) -> str:
    return f"{paired_ratio(part_s, whole_s).median:.1%}"


def single_texts_table(loads: Sequence[Load]) -> Table:
    """Tabulate the throughput of single texts, relative to perf_analyzer's in the same repetition."""
    rates = {load.driver: [load_throughput(each).requests_per_s for each in load.repetitions] for load in loads}
    reference = next((rates[driver] for driver in rates if driver.startswith(_REFERENCE)), None)
    rows = []
    for load in loads:
        times, rate = percentiles(successful_latencies(load.repetitions)), quartiles(rates[load.driver])
        ratio = paired_ratio(rates[load.driver], reference) if reference else None
        rows.append(
            (
                load.driver,
                f"{rate.median:,.1f}",
                f"{rate.low:,.1f} to {rate.high:,.1f}",
                f"{ratio.median:.2f}" if ratio else "-",
                f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio else "-",
                *(f"{_MILLI * seconds:,.1f}" for seconds in (times.p50, times.p95, times.p99)),
                f"{load.rows / load.executions:.1f}",
                f"{sum(load_throughput(each).failed for each in load.repetitions)}",
            )
        )
    header = ("driver", "texts/s", "spread", "vs perf_analyzer", "spread", "p50 ms", "p95 ms", "p99 ms")
    return Table((*header, "rows a batch", "failed"), tuple(rows))


def import_table(imports: Sequence[ImportTime]) -> Table:
    """Tabulate the time of imports, without that of the interpreter."""
    rows = []
    for imported in imports:
        wall, cpu = (
            quartiles([long - short for long, short in zip(taken, empty, strict=True)])
            for taken, empty in ((imported.wall_s, imported.empty_wall_s), (imported.cpu_s, imported.empty_cpu_s))
        )
        rows.append(
            (
                f"`{imported.statement}`",
                f"{wall.median:.3f}",
                f"{wall.low:.3f} to {wall.high:.3f}",
                f"{cpu.median:.3f}",
                f"{cpu.low:.3f} to {cpu.high:.3f}",
                f"{quartiles(imported.empty_wall_s).median:.3f}",
            )
        )
    return Table(("statement", "wall s", "spread", "CPU s", "spread", "empty process, wall s"), tuple(rows))
