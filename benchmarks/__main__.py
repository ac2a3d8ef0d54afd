"""Measure the exported models, compare them with their peers, and report the results."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cost import CorePrice
from .model_shape import SHAPES, ModelShape
from .page import render_page
from .plot_names import PEERS
from .publication import MissingRecordError, read_publication
from .readme import Links, MissingSectionError, render_section, replace_section
from .record import Record
from .record_file import SUFFIX, InvalidRecordError, RecordFile, fingerprint, read_record, record_files
from .report import EnvironmentMismatchError, render_record, render_report
from .samples import FEWEST_REPETITIONS, MIN_REPETITIONS
from .steps import ResumeError
from .workload import GPU_STANDARD, SERVED, STANDARD, WORKLOADS
from .workload import QUICK as QUICK_WORKLOADS

if TYPE_CHECKING:
    from qwen3_triton.export import RuntimeVersion

    from .environment import Gpu

_HERE = Path(__file__).resolve().parent
CACHE = _HERE.parent / ".cache" / "benchmarks"
RESULTS = _HERE / "results"
PLOTS = _HERE / "plots"
README = _HERE.parent / "README.md"
PAGE = _HERE.parent / "docs" / "performance.md"
OUTPUT_VARIABLE = "QWEN3_TRITON_BENCHMARK_OUTPUT"
"""Environment variable with the folder for records, which does not show up in their command."""
_CORES = os.cpu_count() or 1
_FIRST_LOOK_MODEL = "0.6b-4-layers"
_MACHINE_OPTIONS = ("--cache", "--output", "--resume", "--tokenizer")
"""Options left out of a record's command: their values are paths on this machine."""

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def _workloads(standard: Sequence[str]) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        help=f"Any of {', '.join(WORKLOADS)}; by default {', '.join(standard)}."
    )
    return option


_Model = Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")]
_GpuModel = Annotated[
    str | None,
    typer.Option(help=f"One of {', '.join(SHAPES)}. Default: 0.6b, or {_FIRST_LOOK_MODEL} with --first-look."),
]
_Contenders = Annotated[
    list[str] | None,
    typer.Option("--contender", help="Only programs whose name contains this text; by default all."),
]
_Without = Annotated[
    list[str] | None, typer.Option("--without", help="Leave out programs whose name contains this text.")
]
_Repetitions = Annotated[int, typer.Option(min=MIN_REPETITIONS)]
_Threads = Annotated[int, typer.Option(min=1)]
_Cache = Annotated[Path, typer.Option(help="Folder for checkpoints, graphs and environments.")]
_Output = Annotated[Path | None, typer.Option(envvar=OUTPUT_VARIABLE, help="Folder for the record.")]


@app.command()
def run(
    workload: Annotated[list[str] | None, _workloads(STANDARD)] = None,
    model: _Model = "0.6b-4-layers",
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Any of passes, serving, overload, batching, client, soak, export, scaling, quality; by default all "
            "but batching, client, soak and export."
        ),
    ] = None,
    contender: _Contenders = None,
    without: _Without = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RECORD", help="Resume an interrupted run with the same options.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="tokenizer.json of the model in the parts serving, overload, client and soak; by default a byte-level "
            "tokenizer.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny model, and no contender that needs its own environment.")
    ] = False,
    export_case: Annotated[
        list[str] | None,
        typer.Option(
            help="In the part export, only exports whose setting contains this text, such as 'fp16 for cuda'."
        ),
    ] = None,
    repetitions: _Repetitions = MIN_REPETITIONS,
    enough_minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            help=f"Start no further repetition of a workload after this time, apart from the first "
            f"{FEWEST_REPETITIONS}.",
        ),
    ] = None,
    scan_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Rank the settings of a program on about this many tokens of a workload."),
    ] = None,
    threads: _Threads = _CORES,
    cache: _Cache = CACHE,
    output: _Output = None,
) -> None:
    """Measure every contender that can run on this machine and write one record."""
    from .client.options import ClientOptions
    from .contenders import ALL, QUICK, SCALING
    from .export_cost import CASES, ExportCostOptions
    from .quality import QualityOptions
    from .run import STANDARD_PARTS, TOKENIZER_PARTS, Part, RunOptions, run_benchmark
    from .scaling import ScalingOptions
    from .serving.batching import BatchingOptions
    from .serving.measure import LoadOptions
    from .serving.overload import OverloadOptions
    from .serving.soak import SoakOptions
    from .text_tokenizer import UnusableTokenizerError, read_tokenizer

    names = list(QUICK_WORKLOADS) if quick else list(dict.fromkeys(workload or STANDARD))
    _require_known(names, WORKLOADS, "--workload")
    _require_known([model], SHAPES, "--model")
    parts = tuple(part) if part else tuple(Part) if quick else STANDARD_PARTS
    _require_known(parts, tuple(Part), "--part")
    if tokenizer and not set(TOKENIZER_PARTS).intersection(parts):
        *others, last = TOKENIZER_PARTS
        raise typer.BadParameter(f"only the parts {', '.join(others)} and {last} use it", param_hint="--tokenizer")
    try:
        text_tokenizer = read_tokenizer(tokenizer) if tokenizer else None
    except UnusableTokenizerError as exc:
        raise typer.BadParameter(str(exc), param_hint="--tokenizer") from exc
    recipes = [
        recipe
        for recipe in (QUICK if quick else ALL)
        if (not contender or any(wanted in recipe.program for wanted in contender))
        and not any(unwanted in recipe.program for unwanted in without or ())
    ]
    if not recipes:
        raise typer.BadParameter("no program has such a name", param_hint="--contender")
    cases = [case for case in CASES if any(text in case.setting for text in export_case or [""])]
    if not cases:
        raise typer.BadParameter("no export has such a setting", param_hint="--export-case")
    options = RunOptions(
        # the part export has a checkpoint of its own
        shape=SHAPES["tiny" if quick or parts == (Part.EXPORT,) else model],
        workloads=[WORKLOADS[name] for name in names],
        served=WORKLOADS["tiny" if quick else SERVED],
        recipes=recipes,
        scaling_recipes=[recipe for recipe in recipes if recipe in SCALING],
        cache=cache.resolve(),
        threads=threads,
        parts=[Part(name) for name in parts],
        repetitions=repetitions,
        enough_s=math.inf if enough_minutes is None else 60 * enough_minutes,
        scan_tokens=scan_tokens,
        tries_layouts=not quick,
        serving=dataclasses.replace(LoadOptions.quick() if quick else LoadOptions(), tokenizer=text_tokenizer),
        overload=dataclasses.replace(OverloadOptions.quick() if quick else OverloadOptions(), tokenizer=text_tokenizer),
        batching=BatchingOptions.quick() if quick else BatchingOptions(),
        client=dataclasses.replace(ClientOptions.quick() if quick else ClientOptions(), tokenizer=text_tokenizer),
        soak=dataclasses.replace(SoakOptions.quick() if quick else SoakOptions(), tokenizer=text_tokenizer),
        export=ExportCostOptions.quick(SHAPES["tiny"])
        if quick
        else ExportCostOptions(shape=_export_shape(model), cases=cases),
        scaling=ScalingOptions.quick(SHAPES["tiny"]) if quick else ScalingOptions(),
        quality=QualityOptions.quick() if quick else QualityOptions(),
        command=shlex.join(["python", "-m", "benchmarks", *_portable_arguments()]),
    )
    complete = not (workload or part or contender or without)
    title = "quick" if quick else model if complete else "-".join([*(part or ()), *(workload or ()), "part"])
    file = resume or _record_file(output or (cache / "results" if quick else RESULTS), title)
    try:
        interrupted = read_record(resume) if resume else None
        record = run_benchmark(options, _log, RecordFile(file, resuming=resume is not None).save, interrupted)
    except (InvalidRecordError, ResumeError) as exc:
        raise typer.BadParameter(str(exc), param_hint="--resume") from exc
    _show(record, file)


@app.command()
def gpu(
    workload: Annotated[list[str] | None, _workloads(GPU_STANDARD)] = None,
    model: _GpuModel = None,
    contender: _Contenders = None,
    without: _Without = None,
    triton_release: Annotated[
        str | None,
        typer.Option(
            help="Triton image whose operators the graphs may use; by default those of the ONNX Runtime installed here."
        ),
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry", help="Run a tiny model on the CPU, to test the benchmark itself.")
    ] = False,
    first_look: Annotated[
        bool,
        typer.Option(
            "--first-look",
            help="Instead, check in a few minutes whether the graphs compute the right numbers on this GPU, and time "
            "their variants.",
        ),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile/--no-profile", help="Profile the kernels of this project's graphs.")
    ] = True,
    repetitions: _Repetitions = MIN_REPETITIONS,
    threads: _Threads = _CORES,
    cache: _Cache = CACHE,
    output: _Output = None,
) -> None:
    """Compare the graphs for GPUs with transformers on this machine's GPU and write one record.

    The record is saved after every program and repetition, so an interrupted run keeps what it measured.

    Runs from a checkout that is not installed. Needs torch for CUDA, transformers, safetensors, onnx-ir, typer,
    pydantic and onnxruntime-gpu.
    """
    # before ONNX Runtime, which finds the CUDA and cuDNN libraries that torch loads
    import torch  # noqa: F401

    from qwen3_triton.export import TritonRelease

    from .contenders import gpu_recipes, installed_runtime
    from .gpu import GpuNotFoundError, GpuOptions, find_gpu, measure_gpu

    names = ["tiny"] if dry else list(dict.fromkeys(workload or GPU_STANDARD))
    _require_known(names, WORKLOADS, "--workload")
    model = model or (_FIRST_LOOK_MODEL if first_look else "0.6b")
    _require_known([model], SHAPES, "--model")
    if triton_release is not None:
        _require_known([triton_release], tuple(TritonRelease), "--triton-release")
    runtime: RuntimeVersion = TritonRelease(triton_release).runtime if triton_release else installed_runtime()
    recipes = [
        recipe
        for recipe in gpu_recipes(runtime, compiled=not dry)
        if (not contender or any(wanted in recipe.program for wanted in contender))
        and not any(unwanted in recipe.program for unwanted in without or ())
    ]
    if not recipes:
        raise typer.BadParameter("no program has such a name", param_hint="--contender")
    try:
        found = None if dry else find_gpu()
    except GpuNotFoundError as exc:
        typer.echo(f"no usable GPU: {exc}", err=True)
        raise typer.Exit(1) from exc
    if first_look:
        _look_first(found, runtime, model, cache.resolve(), threads, output)
        return
    options = GpuOptions(
        shape=SHAPES["tiny" if dry else model],
        workloads=[WORKLOADS[name] for name in names],
        recipes=recipes,
        cache=cache.resolve(),
        threads=threads,
        repetitions=repetitions,
        gpu=found,
        profiles=profile,
        command=shlex.join(["python", "-m", "benchmarks", *_portable_arguments()]),
    )
    suffix = "-part" if workload or contender or without else ""
    file = _record_file(output or (cache / "results" if dry else RESULTS), f"gpu-{'dry' if dry else model}{suffix}")
    record = measure_gpu(options, _log, RecordFile(file).save)
    _show(record, file)


@app.command()
def report(
    records: Annotated[
        list[Path] | None, typer.Argument(help="Record files; by default the newest one in benchmarks/results.")
    ] = None,
    readme: Annotated[
        bool, typer.Option("--readme", help="Write the README's performance section and docs/performance.md.")
    ] = False,
    plots: Annotated[Path | None, typer.Option(help="Draw the plots of the last record into this folder.")] = None,
    price_per_core_hour: Annotated[
        float | None,
        typer.Option(min=0, help="Price of one core, such as a vCPU of a cloud, to print the cost of a million texts."),
    ] = None,
    price_source: Annotated[
        str, typer.Option(help="Where and when the price was found, printed with the costs; required with a price.")
    ] = "",
) -> None:
    """Print the tables of one or more records, all of which must come from the same environment."""
    price = _price(price_per_core_hour, price_source)
    if readme and price:
        raise typer.BadParameter("the pages contain no prices", param_hint="--price-per-core-hour")
    if readme and records:
        raise typer.BadParameter("the pages are made from the records in benchmarks/results", param_hint="--readme")
    try:
        if readme:
            _write_pages()
            return
        files = records or record_files(RESULTS)[-1:]
        if not files:
            raise MissingRecordError("there is no record yet; run: python -m benchmarks run")
        found = [read_record(file) for file in files]
        typer.echo(render_report(found, price))
        if plots is not None:
            _draw(found[-1], files[-1], plots)
    except (InvalidRecordError, EnvironmentMismatchError, MissingRecordError, MissingSectionError) as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(1) from exc


def _price(per_core_hour: float | None, source: str) -> CorePrice | None:
    """Return the price of the options, which are given together or not at all."""
    if (per_core_hour is None) != (not source):
        missing = "--price-per-core-hour" if per_core_hour is None else "--price-source"
        raise typer.BadParameter("a price and its source are given together", param_hint=missing)
    return None if per_core_hour is None else CorePrice(per_core_hour=per_core_hour, source=source)


def _export_shape(model: str) -> ModelShape:
    """Return the shape of the part export: `model`, with a layer's memory of an 8B model by default."""
    return SHAPES["8b-4-layers" if model == _FIRST_LOOK_MODEL else model]


def _log(line: str) -> None:
    typer.echo(line, err=True)


def _record_file(folder: Path, title: str, suffix: str = SUFFIX) -> Path:
    """Return a file name that starts with the current time, so that names sort chronologically."""
    return folder / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}-{title}{suffix}"


def _show(record: Record, file: Path) -> None:
    typer.echo(f"record: {file.name}", err=True)
    typer.echo(render_record(record))


def _look_first(
    gpu: Gpu | None, runtime: RuntimeVersion, model: str, cache: Path, threads: int, output: Path | None
) -> None:
    from .environment import read_environment
    from .first_look import FirstLook, FirstLookOptions, look_first, render_first_look

    file = _record_file(output or (cache / "results" if gpu is None else RESULTS / "first-look"), "first-look", ".json")

    def save(look: FirstLook) -> None:
        look.save(file)

    options = FirstLookOptions(
        runtime=runtime,
        cache=cache,
        device="cpu" if gpu is None else "cuda",
        environment=read_environment(threads, gpu),
        shape=SHAPES[model],
    )
    if gpu is None:
        options = dataclasses.replace(options, shape=SHAPES["tiny"], timed=("tiny",))
    look = look_first(options, _log, save)
    typer.echo(f"results: {file.name}", err=True)
    typer.echo(render_first_look(look))


def _write_pages() -> None:
    """Write the README section, docs/performance.md and the plots that both include."""
    from .plots import draw_plots

    publication, root = read_publication(RESULTS), README.parent
    section = render_section(publication, Links(plots=PLOTS.relative_to(root), page=PAGE.relative_to(root)))
    text = replace_section(README.read_text(encoding="utf-8"), section)
    page = render_page(publication, plots=Path("..") / PLOTS.relative_to(root))
    whole, complete = publication.whole[0], publication.complete
    draw_plots(
        dataclasses.replace(whole.newest.record, comparisons=whole.comparisons),
        PLOTS,
        whole.newest.source,
        lambda name: name == PEERS,
    )
    draw_plots(complete.record, PLOTS, complete.source, lambda name: name != PEERS)
    README.write_text(text, encoding="utf-8")
    PAGE.write_text(page, encoding="utf-8")
    shown = [each for processor in publication.whole for each in processor.records]
    names = ", ".join(each.file.name for each in (*shown, complete, *filter(None, [publication.client])))
    typer.echo(f"wrote README.md and {PAGE.relative_to(root)} from {names}", err=True)


def _draw(record: Record, file: Path, folder: Path) -> None:
    """Draw the plots of `record`, which was read from `file`."""
    from .plots import draw_plots

    for plot in draw_plots(record, folder, fingerprint(file)):
        typer.echo(f"plot: {plot.name}", err=True)


def _portable_arguments() -> list[str]:
    """Return the command-line arguments without `_MACHINE_OPTIONS`."""
    words, portable = iter(sys.argv[1:]), []
    for word in words:
        if word in _MACHINE_OPTIONS:
            next(words, None)
        elif not word.startswith(tuple(f"{option}=" for option in _MACHINE_OPTIONS)):
            portable.append(word)
    return portable


def _require_known(names: Sequence[str], known: Collection[str], option: str) -> None:
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"'{name}' is not one of {', '.join(known)}", param_hint=option)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
