"""The command `python -m benchmarks run|gpu|report`."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from .model_shape import SHAPES
from .page import render_page
from .readme import Links, NoSection, newest_whole_record, put_section, render_section
from .record import Record
from .record_file import RecordFile, RecordInvalid, identify, read_record
from .report import EnvironmentsDiffer, render_record, render_report
from .samples import MIN_REPETITIONS
from .steps import CannotResume
from .workload import GPU_STANDARD, SERVED, STANDARD, WORKLOADS
from .workload import QUICK as QUICK_WORKLOADS

_HERE = Path(__file__).resolve().parent
CACHE = _HERE.parent / ".cache" / "benchmarks"
RESULTS = _HERE / "results"
PLOTS = _HERE / "plots"
README = _HERE.parent / "README.md"
PAGE = _HERE.parent / "docs" / "performance.md"
_CORES = os.cpu_count() or 1
_PLACES = ("--cache", "--output", "--resume", "--tokenizer")
"""Options that a record's command has no use for, or whose value only this machine knows."""

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def _workloads(standard: Sequence[str]) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(
        help=f"Any of {', '.join(WORKLOADS)}; {', '.join(standard)} where none is given."
    )
    return found


_Model = Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")]
_Contenders = Annotated[
    list[str] | None, typer.Option("--contender", help="Programs whose name holds this; all where none is given.")
]
_Repetitions = Annotated[int, typer.Option(min=MIN_REPETITIONS)]
_Threads = Annotated[int, typer.Option(min=1)]
_Cache = Annotated[Path, typer.Option(help="Checkpoints, graphs and environments.")]
_Output = Annotated[Path | None, typer.Option(help="Folder of the record.")]


@app.command()
def run(
    workload: Annotated[list[str] | None, _workloads(STANDARD)] = None,
    model: _Model = "0.6b-4-layers",
    part: Annotated[
        list[str] | None, typer.Option(help="Any of passes, serving, growth, quality; all where none is given.")
    ] = None,
    contender: _Contenders = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RECORD", help="Goes on with a run that was ended, of the same options.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A tokenizer.json for the part serving; one id a byte where none is given.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny model, no other environment built.")] = False,
    repetitions: _Repetitions = MIN_REPETITIONS,
    threads: _Threads = _CORES,
    cache: _Cache = CACHE,
    output: _Output = None,
) -> None:
    """Measure whatever can run here and write one record."""
    from .contenders import ALL, GROWING, QUICK
    from .growth import GrowthOptions
    from .quality import QualityOptions
    from .run import Part, RunOptions, run_benchmark
    from .serving.measure import ServingOptions
    from .text_tokenizer import TokenizerUnusable, read_tokenizer

    names = list(QUICK_WORKLOADS) if quick else list(dict.fromkeys(workload or STANDARD))
    _require_known(names, WORKLOADS, "--workload")
    _require_known([model], SHAPES, "--model")
    parts = tuple(Part) if not part else tuple(part)
    _require_known(parts, tuple(Part), "--part")
    if tokenizer and Part.SERVING not in parts:
        raise typer.BadParameter("only the part serving has a use for it", param_hint="--tokenizer")
    try:
        texts_tokenizer = read_tokenizer(tokenizer) if tokenizer else None
    except TokenizerUnusable as exc:
        raise typer.BadParameter(str(exc), param_hint="--tokenizer") from exc
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
        serving=dataclasses.replace(ServingOptions.quick() if quick else ServingOptions(), tokenizer=texts_tokenizer),
        growth=GrowthOptions.quick(SHAPES["tiny"]) if quick else GrowthOptions(),
        quality=QualityOptions.quick() if quick else QualityOptions(),
        command=shlex.join(["python", "-m", "benchmarks", *_said()]),
    )
    whole = not (workload or part or contender)
    title = "quick" if quick else model if whole else "-".join([*(part or ()), *(workload or ()), "part"])
    file = resume or _record_file(output or (cache / "results" if quick else RESULTS), title)
    try:
        ended = read_record(resume) if resume else None
        record = run_benchmark(options, _say, RecordFile(file, begun=resume is not None).keep, ended)
    except (RecordInvalid, CannotResume) as exc:
        raise typer.BadParameter(str(exc), param_hint="--resume") from exc
    _show(record, file)


@app.command()
def gpu(
    workload: Annotated[list[str] | None, _workloads(GPU_STANDARD)] = None,
    model: _Model = "0.6b",
    contender: _Contenders = None,
    triton_release: Annotated[
        str | None, typer.Option(help="Image whose operators the graphs have; the ONNX Runtime here if not given.")
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry", help="Tiny model on the CPU: tries the machinery, not the speed.")
    ] = False,
    repetitions: _Repetitions = MIN_REPETITIONS,
    threads: _Threads = _CORES,
    cache: _Cache = CACHE,
    output: _Output = None,
) -> None:
    """Measure the graphs for GPUs against transformers on this machine's GPU and write one record.

    Runs from a checkout that is not installed, beside torch for CUDA, transformers, safetensors, onnx-ir, typer and
    onnxruntime-gpu.
    """
    from qwen3_triton.export import RuntimeVersion, TritonRelease

    from .contenders import installed_runtime, on_gpus
    from .gpu import GpuOptions, NoGpu, find_gpu, measure_gpu

    names = ["tiny"] if dry else list(dict.fromkeys(workload or GPU_STANDARD))
    _require_known(names, WORKLOADS, "--workload")
    _require_known([model], SHAPES, "--model")
    if triton_release is not None:
        _require_known([triton_release], tuple(TritonRelease), "--triton-release")
    runtime: RuntimeVersion = TritonRelease(triton_release).runtime if triton_release else installed_runtime()
    recipes = [
        recipe
        for recipe in on_gpus(runtime, compiled=not dry)
        if not contender or any(wanted in recipe.program for wanted in contender)
    ]
    if not recipes:
        raise typer.BadParameter("no program is called so", param_hint="--contender")
    try:
        found = None if dry else find_gpu()
    except NoGpu as exc:
        typer.echo(f"no GPU run: {exc}", err=True)
        raise typer.Exit(1) from exc
    options = GpuOptions(
        shape=SHAPES["tiny" if dry else model],
        workloads=[WORKLOADS[name] for name in names],
        recipes=recipes,
        cache=cache.resolve(),
        threads=threads,
        repetitions=repetitions,
        gpu=found,
        command=shlex.join(["python", "-m", "benchmarks", *_said()]),
    )
    part = "-part" if workload or contender else ""
    file = _record_file(output or (cache / "results" if dry else RESULTS), f"gpu-{'dry' if dry else model}{part}")
    record = measure_gpu(options, _say, RecordFile(file).keep)
    _show(record, file)


@app.command()
def report(
    records: Annotated[list[Path] | None, typer.Argument(help="Record files; the newest result if none.")] = None,
    readme: Annotated[
        bool, typer.Option("--readme", help="Write the README's performance section and docs/performance.md.")
    ] = False,
    plots: Annotated[Path | None, typer.Option(help="Draw the plots of the last record into this folder.")] = None,
) -> None:
    """Print tables of each record, all of which must come from the same environment."""
    try:
        if readme:
            file = records[-1] if records else newest_whole_record(RESULTS)
            _write_readme(file)
            return
        files = records or sorted(RESULTS.glob("*.json"))[-1:]
        if not files:
            raise NoSection("no record yet; run: python -m benchmarks run")
        found = [read_record(file) for file in files]
        typer.echo(render_report(found))
        if plots is not None:
            _draw(found[-1], files[-1], plots)
    except (RecordInvalid, EnvironmentsDiffer, NoSection) as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(1) from exc


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _record_file(folder: Path, title: str) -> Path:
    """Named after the present moment, so that names sort as the runs began."""
    return folder / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}-{title}.json"


def _show(record: Record, file: Path) -> None:
    typer.echo(f"record: {file.name}", err=True)
    typer.echo(render_record(record))


def _write_readme(file: Path) -> None:
    """The section, the page that it leads to and the plots that both show."""
    record, root = read_record(file), README.parent
    section = render_section(record, Links(plots=PLOTS.relative_to(root), page=PAGE.relative_to(root)))
    text = put_section(README.read_text(encoding="utf-8"), section)
    page = render_page(record, name=file.name, plots=Path("..") / PLOTS.relative_to(root))
    _draw(record, file, PLOTS)
    README.write_text(text, encoding="utf-8")
    PAGE.write_text(page, encoding="utf-8")
    typer.echo(f"README.md and {PAGE.relative_to(root)} have the figures of {file.name}", err=True)


def _draw(record: Record, file: Path, folder: Path) -> None:
    """The plots of `record`, which lies in `file`."""
    from .plots import draw_plots

    for plot in draw_plots(record, folder, identify(file)):
        typer.echo(f"plot: {plot.name}", err=True)


def _said() -> list[str]:
    """The command line without the places of this machine."""
    given, said = iter(sys.argv[1:]), []
    for word in given:
        if word in _PLACES:
            next(given, None)
        elif not word.startswith(tuple(f"{place}=" for place in _PLACES)):
            said.append(word)
    return said


def _require_known(names: Sequence[str], known: Collection[str], option: str) -> None:
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"'{name}' is none of {', '.join(known)}", param_hint=option)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
