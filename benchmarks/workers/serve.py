"""Main loop of all workers: load the program, then process requests."""

from __future__ import annotations

import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping

from ..environment import installed_versions
from ..memory import available_bytes
from ..rows import Rows, Vectors
from .messages import Failure, Message, Ready, WorkRequest, WorkResult, receive, require, send

_MEMORY_SHARE = 85
"""Percent of the memory available at the start of a worker that it may allocate."""
Options = Mapping[str, str]
Embed = Callable[[Rows, int], Vectors]
"""Function of token rows and batch size that returns unit vectors [n, hidden], float32, in the order of the rows."""
Handle = Callable[[Message], Message]
"""Processes one request; raises if it fails."""


def serve(load: Callable[[Options], Embed], packages: tuple[str, ...]) -> None:
    """Embed rows until standard input is closed; the options are the first argument, as JSON.

    Args:
        load: loads the program and returns its embedding function.
        packages: packages whose versions are reported.
    """
    serve_messages(lambda options: functools.partial(_process, load(options)), packages)


def serve_messages(load: Callable[[Options], Handle], packages: tuple[str, ...]) -> None:
    """Process requests of any kind; otherwise like `serve`.

    Args:
        load: loads the program and returns what processes its requests.
        packages: packages whose versions are reported.
    """
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # output that libraries print must not mix with the messages
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    options = json.loads(sys.argv[1])
    if options.get("device") != "cuda":
        # CUDA reserves more address space than the machine has memory
        _limit_memory()
    try:
        handle = load(options)
    except Exception as exc:  # noqa: BLE001 - any exception is reported as the reason in the record
        send(channel, Failure(reason=_failure_reason(exc)))
        return
    send(channel, Ready(versions=installed_versions(packages)))
    while True:
        try:
            message = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            result = handle(message)
        except Exception as exc:  # noqa: BLE001
            result = Failure(reason=_failure_reason(exc))
        send(channel, result)


def _limit_memory() -> None:
    """Make allocations fail before this process exhausts the machine's memory."""
    resource.setrlimit(resource.RLIMIT_DATA, (available_bytes() * _MEMORY_SHARE // 100, resource.RLIM_INFINITY))


def _process(embed: Embed, message: Message) -> Message:
    work = require(message, WorkRequest)
    walls, cpus = [], []
    for _ in range(work.passes):
        wall, cpu = time.perf_counter(), time.process_time()
        vectors = embed(work.rows, work.batch_rows)
        walls.append(round(time.perf_counter() - wall, 6))
        cpus.append(round(time.process_time() - cpu, 6))
    return WorkResult(vectors=vectors, walls_s=tuple(walls), cpus_s=tuple(cpus))


def _failure_reason(exc: Exception) -> str:
    lines = [line for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0] if lines else 'no message'}"
