"""The console script; says what to install where the command line's own packages are missing."""

from __future__ import annotations

import sys


def run() -> None:
    """Runs `qwen3-triton`; exit status 1 with one line where typer or rich is not installed."""
    try:
        from .main import run as run_commands
    except ModuleNotFoundError as exc:
        if exc.name not in ("typer", "rich"):
            raise
        sys.stderr.write(f"error: {exc}; install the command line: pip install 'qwen3-triton[cli]'\n")
        sys.exit(1)
    run_commands()
