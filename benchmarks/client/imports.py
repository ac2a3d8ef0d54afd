"""Time that a new process takes to import the client, in turns with a process that does nothing."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from ..contenders.contender import ContenderUnavailableError, RunContext
from ..contenders.reasons import public_reason
from ..workers.messages import Timed
from .results import ImportTime

STATEMENT = "from qwen3_triton.client import EmbeddingClient"
_EMPTY = "pass"
_SEED = 31
_ROOT = Path(__file__).resolve().parent.parent.parent


def measure_import(turns: int, context: RunContext) -> ImportTime:
    """Start a process with the import and one without it in each turn, in random order.

    Raises:
        ContenderUnavailableError: if the import fails.
    """
    context.log(f"{STATEMENT}: {turns} turns")
    rng, statements = random.Random(_SEED), [STATEMENT, _EMPTY]
    taken: dict[str, list[Timed]] = {statement: [] for statement in statements}
    with tempfile.TemporaryDirectory() as byte_code:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        variables["PYTHONPYCACHEPREFIX"] = byte_code
        # compiles the modules, as the installation of a package does
        _run(STATEMENT, variables)
        for _ in range(turns):
            rng.shuffle(statements)
            for statement in statements:
                taken[statement].append(_run(statement, variables))
    imported, empty = taken[STATEMENT], taken[_EMPTY]
    return ImportTime(
        statement=STATEMENT,
        wall_s=tuple(each.wall_s for each in imported),
        cpu_s=tuple(each.cpu_s for each in imported),
        empty_wall_s=tuple(each.wall_s for each in empty),
        empty_cpu_s=tuple(each.cpu_s for each in empty),
    )


def _run(statement: str, variables: Mapping[str, str]) -> Timed:
    """Run a statement in a new process; return the times from its start to its end."""
    wall_s, cpu_s = time.perf_counter(), _children_cpu_s()
    try:
        subprocess.run(
            [sys.executable, "-c", statement], cwd=_ROOT, env=variables, check=True, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as exc:
        lines = exc.stderr.strip().splitlines() or [f"exit status {exc.returncode}"]
        raise ContenderUnavailableError(public_reason(lines[-1])) from exc
    return Timed(wall_s=round(time.perf_counter() - wall_s, 6), cpu_s=round(_children_cpu_s() - cpu_s, 6))


def _children_cpu_s() -> float:
    """Return the CPU time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
