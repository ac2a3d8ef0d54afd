"""Records → plots, each as PNG and as SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import plot_names
from .growth import TOKENS
from .record import Growth, Record
from .samples import answered_latencies, fit_cost, load_speed, percentiles, spread
from .tables import is_ours, ours_first, tokens_per_s

_OURS, _OTHERS = "#1b6ca8", "#b0b0b0"
_BYTES = 4
"""Of one vector component in float32."""
Draw = Callable[[Figure], None]
_LOOP_LINES = {"closed": "-", "open": "--"}
_DRIVER_MARKERS = "o^sD"


def draw_plots(record: Record, folder: Path, source: str) -> list[Path]:
    """Writes every plot that the record has figures for, `source` in their metadata, and returns the files."""
    draws: list[tuple[str, bool, Draw]] = [
        (plot_names.PEERS, bool(record.rounds), partial(_draw_peers, record)),
        (plot_names.LATENCY, bool(record.loads), partial(_draw_loads, record)),
        (plot_names.CLIENTS, bool(record.loads), partial(_draw_clients, record)),
        (plot_names.QUALITY, bool(record.quality), partial(_draw_quality, record)),
    ]
    for of in dict.fromkeys(growth.of for growth in record.growth):
        chosen = [growth for growth in record.growth if growth.of == of]
        draws.append((plot_names.growth(of), True, partial(_draw_growth, chosen)))
    return [file for name, wanted, draw in draws if wanted for file in _write(folder, name, draw, source)]


def _write(folder: Path, name: str, draw: Draw, source: str) -> list[Path]:
    # the same record gives the same bytes
    with mpl.rc_context({"svg.hashsalt": name, "font.size": 9, "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        draw(figure)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{name}.png", folder / f"{name}.svg"]
        figure.savefig(files[0], dpi=120, metadata={"Software": None, "Source": source})
        figure.savefig(files[1], metadata={"Date": None, "Source": source})
    return files


def _draw_peers(record: Record, figure: Figure) -> None:
    """Bars of tokens a second, a panel for each workload."""
    rounds = record.rounds
    columns = min(len(rounds), 2)
    lines = -(-len(rounds) // columns)
    most = max(len(measured.entries) for measured in rounds)
    figure.set_size_inches(5.5 * columns, (0.8 + 0.17 * most) * lines)
    for place, measured in enumerate(rounds):
        axes = figure.add_subplot(lines, columns, place + 1)
        entries = ours_first(measured.entries)[::-1]
        speeds = [tokens_per_s(entry, measured) for entry in entries]
        colours = [_OURS if is_ours(entry.program) else _OTHERS for entry in entries]
        bars = axes.barh([entry.program for entry in entries], speeds, color=colours)
        axes.bar_label(bars, [f"{speed:,.0f}" for speed in speeds], padding=2, fontsize=7)
        axes.set_title(measured.workload.name, fontsize=9)
        axes.margins(x=0.15)
        axes.set_xlabel("tokens/s")


def _draw_loads(record: Record, figure: Figure) -> None:
    figure.set_size_inches(7, 5)
    axes = figure.add_subplot()
    found = _load_points(record)
    for (program, driver, loop), points in found.items():
        look = _look(found, program, driver)
        axes.plot(
            [point[1] for point in points],
            [point[2] * 1e3 for point in points],
            _LOOP_LINES[loop],
            color=look.color,
            marker=look.marker,
            label=f"{program}, {loop} loop, {driver}",
        )
    axes.set_yscale("log")
    _finish(axes, "texts/s", "p99 latency, ms", figure)


def _draw_clients(record: Record, figure: Figure) -> None:
    """Throughput against requests in flight, and what perfect scaling up to the highest rate would be."""
    figure.set_size_inches(7, 5)
    axes = figure.add_subplot()
    found = _load_points(record)
    for (program, driver, loop), points in found.items():
        if loop != "closed":
            continue
        clients, rates = [point[0] for point in points], [point[1] for point in points]
        look = _look(found, program, driver)
        axes.plot(clients, rates, "-", color=look.color, marker=look.marker, label=f"{program}, {driver}")
        expected = [min(count / clients[0] * rates[0], max(rates)) for count in clients]
        axes.plot(clients, expected, ":", color=look.color)
    axes.set_xscale("log", base=2)
    _finish(axes, "requests in flight (dotted: linear up to the highest rate)", "texts/s", figure)


@dataclass(frozen=True, slots=True)
class _Look:
    """Of a line: a colour for each program and a marker for each driver."""

    color: str
    marker: str


def _look(found: Iterable[tuple[str, str, str]], program: str, driver: str) -> _Look:
    programs, drivers = (list(dict.fromkeys(key[place] for key in found)) for place in (0, 1))
    return _Look(color=f"C{programs.index(program)}", marker=_DRIVER_MARKERS[drivers.index(driver)])


def _load_points(record: Record) -> dict[tuple[str, str, str], list[tuple[float, float, float]]]:
    """(in flight or rate, texts/s, p99 seconds) by program, driver and loop."""
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for load in record.loads:
        rate = spread([load_speed(requests).requests_per_s for requests in load.repetitions]).median
        p99 = percentiles(answered_latencies(load.repetitions)).p99
        size = float(load.in_flight or load.rate_per_s or 0)
        found.setdefault((load.program, load.driver, load.loop), []).append((size, rate, p99))
    return {key: sorted(points) for key, points in found.items()}


def _draw_quality(record: Record, figure: Figure) -> None:
    tasks = list(dict.fromkeys(score.task for score in record.quality))
    for place, task in enumerate(tasks):
        axes = figure.add_subplot(1, len(tasks), place + 1)
        for precision in dict.fromkeys(score.precision for score in record.quality):
            scores = [score for score in record.quality if (score.task, score.precision) == (task, precision)]
            axes.plot(
                [score.dimension * _BYTES for score in scores],
                [score.ndcg_at_10 for score in scores],
                "o-",
                label=precision,
                alpha=0.7,
            )
        axes.set_title(task.lower().replace("_", " "), fontsize=9)
        axes.set_xscale("log", base=2)
        # the lines are the same in every panel
        _finish(axes, "bytes a vector", "nDCG@10", figure if place == 0 else None)


def _draw_growth(growth: Sequence[Growth], figure: Figure) -> None:
    """Medians and quartiles with the expected curve fitted: linear, and attention's square in a text's length."""
    axes = figure.add_subplot()
    square = growth[0].of == TOKENS
    for each in growth:
        sizes = [point.size for point in each.points]
        times = [spread([sample.wall_s for sample in point.samples]) for point in each.points]
        medians = [time.median for time in times]
        errors = [[time.median - time.low for time in times], [time.high - time.median for time in times]]
        points = axes.errorbar(sizes, medians, errors, fmt="o", label=each.program)
        curve, colour = fit_cost(sizes, medians, square=square), points.lines[0].get_color()
        axes.plot(sizes, [curve.at(size) for size in sizes], "-", color=colour, label=_curve_name(square))
        if square:
            straight = [curve.fixed + curve.linear * size for size in sizes]
            axes.plot(sizes, straight, ":", color=colour, label="without the square")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _finish(axes, growth[0].of, "seconds", figure)


def _curve_name(square: bool) -> str:
    return "fixed + linear + square, fitted" if square else "fixed + linear, fitted"


def _finish(axes: Axes, across: str, up: str, legend_on: Figure | None) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    if legend_on is not None:
        # below the axes it hides no point
        legend_on.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
