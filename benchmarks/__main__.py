"""The command `python -m benchmarks run|report`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer

from .model_shape import SHAPES
from .record import RecordInvalid, read_record, write_record
from .report import EnvironmentsDiffer, render_record, render_report
from .samples import MIN_REPETITIONS
from .workload import SERVED, STANDARD, WORKLOADS

_HERE = Path(__file__).resolve().parent
CACHE = _HERE.parent / ".cache" / "benchmarks"
RESULTS = _HERE / "results"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def run(
    workload: Annotated[
        list[str] | None,
        typer.Option(help=f"Any of {', '.join(WORKLOADS)}; {', '.join(STANDARD)} where none is given."),
    ] = None,
    model: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")] = "0.6b-4-layers",
    part: Annotated[
        list[str] | None, typer.Option(help="Any of passes, serving, growth, quality; all where none is given.")
    ] = None,
    contender: Annotated[
        list[str] | None, typer.Option(help="Programs whose name holds this; all where none is given.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny model, no other environment built.")] = False,
    repetitions: Annotated[int, typer.Option(min=MIN_REPETITIONS)] = MIN_REPETITIONS,
    threads: Annotated[int, typer.Option(min=1)] = os.cpu_count() or 1,
    cache: Annotated[Path, typer.Option(help="Checkpoints, graphs and environments.")] = CACHE,
    output: Annotated[Path | None, typer.Option(help="Folder of the record.")] = None,
) -> None:
    """Measure whatever can run here and write one record."""
    from .contenders import ALL, GROWING, QUICK
    from .growth import GrowthOptions
    from .quality import QualityOptions
    from .run import Part, RunOptions, run_benchmark
    from .serving.measure import ServingOptions

    names = ["tiny"] if quick else list(dict.fromkeys(workload or STANDARD))
    _require_known(names, WORKLOADS, "--workload")
    _require_known([model], SHAPES, "--model")
    parts = tuple(Part) if not part else tuple(part)
    _require_known(parts, tuple(Part), "--part")
    recipes = [
        recipe
        for recipe in (QUICK if quick else ALL)
        if not contender or any(wanted in recipe.program for wanted in contender)
    ]
    if not recipes:
        raise typer.BadParameter("no program is called so", param_hint="--contender")
    options = RunOptions(
        shape=SHAPES["tiny" if quick else model],
        workloads=[WORKLOADS[name] for name in names],
        served=WORKLOADS["tiny" if quick else SERVED],
        recipes=recipes,
        growing=[recipe for recipe in recipes if recipe in GROWING],
        cache=cache.resolve(),
        threads=threads,
        parts=[Part(name) for name in parts],
        repetitions=repetitions,
        serving=ServingOptions.quick() if quick else ServingOptions(),
        growth=GrowthOptions.quick(SHAPES["tiny"]) if quick else GrowthOptions(),
        quality=QualityOptions.quick() if quick else QualityOptions(),
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
    )
    record = run_benchmark(options, lambda line: typer.echo(line, err=True))
    folder = output or (cache / "results" if quick else RESULTS)
    whole = not (workload or part or contender)
    title = "quick" if quick else model if whole else "-".join([*(part or ()), *(workload or ()), "part"])
    file = folder / f"{record.started[:19].replace(':', '')}-{title}.json"
    write_record(record, file)
    typer.echo(f"record: {file.name}", err=True)
    typer.echo(render_record(record))


@app.command()
def report(
    records: Annotated[list[Path] | None, typer.Argument(help="Record files; the newest result if none.")] = None,
) -> None:
    """Print a table of each record; all must come from the same environment."""
    files = records or sorted(RESULTS.glob("*.json"))[-1:]
    if not files:
        typer.echo("no record yet; run: python -m benchmarks run", err=True)
        raise typer.Exit(1)
    try:
        typer.echo(render_report([read_record(file) for file in files]))
    except (RecordInvalid, EnvironmentsDiffer) as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(1) from exc


def _require_known(names: Sequence[str], known: Collection[str], option: str) -> None:
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"'{name}' is none of {', '.join(known)}", param_hint=option)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
