"""Entry point of the console script, which works without typer and rich to report that they are missing."""

from __future__ import annotations

import sys


def run() -> None:
    """Run `qwen3-triton`; exit with status 1 and one line on stderr if typer or rich is not installed."""
    try:
        from .main import run as run_commands
    except ModuleNotFoundError as exc:
        if exc.name not in ("typer", "rich"):
            raise
        sys.stderr.write(f"error: {exc}; install the command line: pip install 'qwen3-triton[cli]'\n")
        sys.exit(1)
    run_commands()
