"""The command `qwen3-triton` and how its errors reach a user."""

from __future__ import annotations

import importlib
import sys

import typer

from .. import __version__
from ..client.errors import ClientError
from .embed import embed
from .export import export
from .inspect import inspect
from .merge import merge
from .rerank import rerank
from .serve import serve

app = typer.Typer(
    help="LoRA-tuned Qwen3-Embedding and Qwen3-Reranker checkpoints as Triton model repositories, served and queried.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(export)
app.command()(merge)
app.command()(inspect)
app.command()(serve)
app.command()(embed)
app.command()(rerank)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"qwen3-triton {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _debug: bool = typer.Option(False, "--debug", help="Show tracebacks."),
    _version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
    ),
) -> None:
    """Options before the sub-command; `run` reads --debug, since it must also catch errors raised here."""


def run() -> None:
    """Runs the command line: exit status 0 done, 1 failed with one line on stderr, 2 bad usage."""
    debug = "--debug" in sys.argv[1:]
    try:
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
        _fail(_line(exc))


def _line(exc: Exception) -> str:
    text = str(exc).strip() or type(exc).__name__
    return text if isinstance(exc, _own_errors()) else f"unexpected {type(exc).__name__}: {text} (--debug shows where)"


def _own_errors() -> tuple[type[Exception], ...]:
    """The roots of the error trees of the rooms that were loaded; the others cannot have raised."""
    roots: list[type[Exception]] = [ClientError]
    for module, name in (("export.errors", "ExportError"), ("server.errors", "ServerError")):
        loaded = sys.modules.get(f"qwen3_triton.{module}")
        if loaded is not None:
            roots.append(getattr(importlib.import_module(f"qwen3_triton.{module}"), name))
    return tuple(roots)


def _extra() -> str:
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "export")
    return {"serve": "server", "embed": "cli", "rerank": "cli", "inspect": "cli"}.get(command, "export")


def _fail(line: str) -> None:
    typer.echo("error: " + " ".join(line.split("\n")), err=True)
    sys.exit(1)
