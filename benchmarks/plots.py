"""Draws the plots of a record, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import plot_names
from .record import Record, ScalingCurve, ScalingVariable
from .samples import fit_cost, load_throughput, percentiles, quartiles, successful_latencies
from .tables import is_ours, ours_first, tokens_per_s

_OURS, _OTHERS = "#1b6ca8", "#b0b0b0"
_FLOAT32_BYTES = 4
Draw = Callable[[Figure], None]
_LOOP_LINES = {"closed": "-", "open": "--"}
_DRIVER_MARKERS = "o^sD"


def draw_plots(
    record: Record, folder: Path, source: str, wanted: Callable[[str], bool] = lambda _name: True
) -> list[Path]:
    """Draw every plot for which the record has data.

    Args:
        record: the record to plot.
        folder: output folder.
        source: identity of the record, stored in the metadata of the files.
        wanted: which plots to draw, by name.

    Returns:
        The files written.
    """
    draws: list[tuple[str, bool, Draw]] = [
        (plot_names.PEERS, bool(record.comparisons), partial(_draw_peers, record)),
        (plot_names.LATENCY, bool(record.loads), partial(_draw_loads, record)),
        (plot_names.CLIENTS, bool(record.loads), partial(_draw_clients, record)),
        (plot_names.QUALITY, bool(record.quality), partial(_draw_quality, record)),
    ]
    for variable in dict.fromkeys(curve.variable for curve in record.scaling):
        curves = [curve for curve in record.scaling if curve.variable == variable]
        draws.append((plot_names.scaling(variable), True, partial(_draw_scaling, curves)))
    chosen = [(name, draw) for name, has_data, draw in draws if has_data and wanted(name)]
    return [file for name, draw in chosen for file in _write(folder, name, draw, source)]


def _write(folder: Path, name: str, draw: Draw, source: str) -> list[Path]:
    # a fixed hash salt makes the SVG reproducible
    with mpl.rc_context({"svg.hashsalt": name, "font.size": 9, "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        draw(figure)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{name}.png", folder / f"{name}.svg"]
        figure.savefig(files[0], dpi=120, metadata={"Software": None, "Source": source})
        figure.savefig(files[1], metadata={"Date": None, "Source": source})
    return files


def _draw_peers(record: Record, figure: Figure) -> None:
    """Draw bars of tokens per second, one panel per workload."""
    comparisons = record.comparisons
    columns = min(len(comparisons), 2)
    panel_rows = -(-len(comparisons) // columns)
    most = max(len(comparison.entries) for comparison in comparisons)
    figure.set_size_inches(5.5 * columns, (0.8 + 0.17 * most) * panel_rows)
    for index, comparison in enumerate(comparisons):
        axes = figure.add_subplot(panel_rows, columns, index + 1)
        entries = ours_first(comparison.entries)[::-1]
        speeds = [tokens_per_s(entry, comparison) for entry in entries]
        colours = [_OURS if is_ours(entry.program) else _OTHERS for entry in entries]
        bars = axes.barh([entry.program for entry in entries], speeds, color=colours)
        axes.bar_label(bars, [f"{speed:,.0f}" for speed in speeds], padding=2, fontsize=7)
        axes.set_title(comparison.workload.name, fontsize=9)
        axes.margins(x=0.15)
        axes.set_xlabel("tokens/s")


def _draw_loads(record: Record, figure: Figure) -> None:
    figure.set_size_inches(7, 5)
    axes = figure.add_subplot()
    found = _load_points(record)
    for (program, driver, loop), points in found.items():
        look = _line_style(found, program, driver)
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
    """Draw throughput against requests in flight, and linear scaling up to the highest throughput."""
    figure.set_size_inches(7, 5)
    axes = figure.add_subplot()
    found = _load_points(record)
    for (program, driver, loop), points in found.items():
        if loop != "closed":
            continue
        clients, rates = [point[0] for point in points], [point[1] for point in points]
        look = _line_style(found, program, driver)
        axes.plot(clients, rates, "-", color=look.color, marker=look.marker, label=f"{program}, {driver}")
        expected = [min(count / clients[0] * rates[0], max(rates)) for count in clients]
        axes.plot(clients, expected, ":", color=look.color)
    axes.set_xscale("log", base=2)
    _finish(axes, "requests in flight (dotted: linear up to the highest throughput)", "texts/s", figure)


@dataclass(frozen=True, slots=True)
class _LineStyle:
    """Style of a line: a colour per program and a marker per driver."""

    color: str
    marker: str


def _line_style(found: Iterable[tuple[str, str, str]], program: str, driver: str) -> _LineStyle:
    programs, drivers = (list(dict.fromkeys(key[index] for key in found)) for index in (0, 1))
    return _LineStyle(color=f"C{programs.index(program)}", marker=_DRIVER_MARKERS[drivers.index(driver)])


def _load_points(record: Record) -> dict[tuple[str, str, str], list[tuple[float, float, float]]]:
    """Return (requests in flight or rate, texts/s, p99 seconds) by program, driver and loop."""
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for load in record.loads:
        rate = quartiles([load_throughput(requests).requests_per_s for requests in load.repetitions]).median
        p99 = percentiles(successful_latencies(load.repetitions)).p99
        size = float(load.in_flight or load.rate_per_s or 0)
        found.setdefault((load.program, load.driver, load.loop), []).append((size, rate, p99))
    return {key: sorted(points) for key, points in found.items()}


def _draw_quality(record: Record, figure: Figure) -> None:
    tasks = list(dict.fromkeys(score.task for score in record.quality))
    for index, task in enumerate(tasks):
        axes = figure.add_subplot(1, len(tasks), index + 1)
        for precision in dict.fromkeys(score.precision for score in record.quality):
            scores = [score for score in record.quality if (score.task, score.precision) == (task, precision)]
            axes.plot(
                [score.dimension * _FLOAT32_BYTES for score in scores],
                [score.ndcg_at_10 for score in scores],
                "o-",
                label=precision,
                alpha=0.7,
            )
        axes.set_title(task.lower().replace("_", " "), fontsize=9)
        axes.set_xscale("log", base=2)
        # one legend is enough: the lines are the same in every panel
        _finish(axes, "bytes per embedding", "nDCG@10", figure if index == 0 else None)


def _draw_scaling(curves: Sequence[ScalingCurve], figure: Figure) -> None:
    """Draw medians, quartiles and a fitted curve, which is quadratic in the length of a text because of attention."""
    axes = figure.add_subplot()
    variable = curves[0].variable
    quadratic = variable is ScalingVariable.TOKENS
    for each in curves:
        sizes = [point.size for point in each.points]
        times = [quartiles([sample.wall_s for sample in point.samples]) for point in each.points]
        medians = [time.median for time in times]
        errors = [[time.median - time.low for time in times], [time.high - time.median for time in times]]
        points = axes.errorbar(sizes, medians, errors, fmt="o", label=each.program)
        fit, color = fit_cost(sizes, medians, quadratic=quadratic), points.lines[0].get_color()
        axes.plot(sizes, [fit.at(size) for size in sizes], "-", color=color, label=_fit_name(quadratic))
        if quadratic:
            linear = [fit.constant + fit.linear * size for size in sizes]
            axes.plot(sizes, linear, ":", color=color, label="without the quadratic term")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _finish(axes, variable.label, "seconds", figure)


def _fit_name(quadratic: bool) -> str:
    return "fit: constant + linear + quadratic" if quadratic else "fit: constant + linear"


def _finish(axes: Axes, x_label: str, y_label: str, legend_figure: Figure | None) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    if legend_figure is not None:
        # below the axes, where it covers no points
        legend_figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
