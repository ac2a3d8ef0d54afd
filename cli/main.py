"""The `qwen3-triton` command and its error handling."""

from __future__ import annotations

import sys
from inspect import signature

import typer

from .. import __version__
from ..client.errors import ClientError
from ..client.manifest.panics import panics_as_errors
from .embed import embed
from .export import export
from .inspect import inspect
from .log_lines import show_warnings
from .merge import merge
from .rerank import rerank
from .serve import serve
from .versions import list_models, rollback
from .write_errors import explain_write_error, is_disk_full

_SERVE_OPTIONS = signature(serve).parameters.keys()
"""Fields of ServerOptions that the command line offers."""
_OPTIONS_OF_ERRORS = {
    "Int8AccuracyError": "--max-int8-error or --calibration",
    "ModelExistsError": "--overwrite",
    "RetrievalQualityError": "--max-ndcg-loss",
    "ServerNotReadyError": "--verbose",
    "ServerTimeoutError": "--timeout or --request-timeout",
    "WitnessError": "--witness none",
}
"""Options that change the outcome, by the class of an exception; the exporter's are loaded only by its commands."""

app = typer.Typer(
    help="Export LoRA-tuned Qwen3-Embedding and Qwen3-Reranker checkpoints to Triton, serve them, and query them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(export)
app.command()(merge)
app.command()(inspect)
app.command("list")(list_models)
app.command()(rollback)
app.command()(serve)
app.command()(embed)
app.command()(rerank)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"qwen3-triton {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _debug: bool = typer.Option(False, "--debug", help="Show tracebacks."),
    _version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
    ),
) -> None:
    """Options before the sub-command; --debug may be anywhere, as `run` evaluates it."""


def run() -> None:
    """Run the command line. Exit status: 0 on success, 1 on failure with one line on stderr, 2 for invalid usage."""
    debug = "--debug" in sys.argv[1:]
    # accepted anywhere, because messages advise to add it
    sys.argv[1:] = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        with panics_as_errors(), show_warnings():
            app()
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as exc:
        if debug:
            raise
        _fail(f"{exc}; install what this command needs: pip install 'qwen3-triton[{_extra()}]'")
    except Exception as exc:
        if debug:
            raise
        _fail(_error_line(exc))


def _error_line(exc: Exception) -> str:
    text = str(exc).strip() or type(exc).__name__
    if isinstance(exc, OSError) and is_disk_full(exc):
        return f"cannot write {exc.filename or 'the output'}: {explain_write_error(exc)}"
    if not isinstance(exc, _library_errors()):
        return f"unexpected {type(exc).__name__}: {text} (use --debug to see the traceback)"
    option = getattr(exc, "option", None)
    if option in _SERVE_OPTIONS:
        return f"{text} (option --{option.replace('_', '-')})"
    hint = _OPTIONS_OF_ERRORS.get(type(exc).__name__)
    return text if hint is None else f"{text} (option {hint})"


def _library_errors() -> tuple[type[Exception], ...]:
    """Return the base classes of this project's exceptions, of the packages that have been imported."""
    bases: list[type[Exception]] = [ClientError]
    for module, name in (("export.errors", "ExportError"), ("server.errors", "LocalServerError")):
        loaded = sys.modules.get(f"qwen3_triton.{module}")
        if loaded is not None:
            bases.append(getattr(loaded, name))
    return tuple(bases)


def _extra() -> str:
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "export")
    return {"export": "export", "merge": "export", "serve": "server"}.get(command, "cli")


def _fail(line: str) -> None:
    typer.echo("error: " + " ".join(line.split("\n")), err=True)
    sys.exit(1)
