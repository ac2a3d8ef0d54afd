"""The loop of every worker: load once, then embed and time what is asked for."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping

from ..environment import installed_versions
from ..memory import free_bytes
from ..rows import Rows, Vectors
from .messages import Done, Failed, Message, Ready, Work, receive, send

_MEMORY_SHARE = 85
"""Percent of what is free when a worker starts."""
Options = Mapping[str, str]
Embed = Callable[[Rows, int], Vectors]
"""Token rows and how many of them make a batch → unit rows float32 [n, hidden] in the callers' order."""


def serve(load: Callable[[Options], Embed], packages: tuple[str, ...]) -> None:
    """Answers requests on standard input until it ends; the options are JSON in the first argument."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # what a library prints must not stand among the messages
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    options = json.loads(sys.argv[1])
    if options.get("device") != "cuda":
        # CUDA reserves more addresses than a machine has memory
        _limit_memory()
    try:
        embed = load(options)
    except Exception as exc:  # noqa: BLE001 - whatever a program raises is the reason that the record gives
        send(channel, Failed(why=_reason(exc)))
        return
    send(channel, Ready(versions=installed_versions(packages)))
    while True:
        try:
            work = receive(sys.stdin.buffer)
        except EOFError:
            return
        if isinstance(work, Work):
            send(channel, _answer(embed, work))


def _limit_memory() -> None:
    """Lets this process fail where it would take the machine's last memory and other processes with it."""
    resource.setrlimit(resource.RLIMIT_DATA, (free_bytes() * _MEMORY_SHARE // 100, resource.RLIM_INFINITY))


def _answer(embed: Embed, work: Work) -> Message:
    walls, cpus = [], []
    try:
        for _ in range(work.passes):
            wall, cpu = time.perf_counter(), time.process_time()
            vectors = embed(work.rows, work.batch_rows)
            walls.append(round(time.perf_counter() - wall, 6))
            cpus.append(round(time.process_time() - cpu, 6))
    except Exception as exc:  # noqa: BLE001
        return Failed(why=_reason(exc))
    return Done(vectors=vectors, walls_s=tuple(walls), cpus_s=tuple(cpus))


def _reason(exc: Exception) -> str:
    lines = [line for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0] if lines else 'no message'}"
