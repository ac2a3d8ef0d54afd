"""Command line of `tritonserver` and its supervisor."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import supervise
from .addresses import Addresses
from .environment import ServerEnvironment
from .options import ModelControl, ServerOptions

_EXIT_MARGIN_S = 3
_SHARED_MEMORY_BYTES = 8 << 20
"""For the requests and replies of one model instance."""


def server_command(
    options: ServerOptions, addresses: Addresses, environment: ServerEnvironment, backends: Path
) -> list[str]:
    """Return the command that runs `tritonserver` under its supervisor in the model repository.

    Args:
        options: Options of the server.
        addresses: Addresses that were chosen for it.
        environment: Installed environment.
        backends: Triton's backend directory.
    """
    supervisor = [sys.executable, "-I", "-S", str(Path(supervise.__file__).resolve())]
    supervisor += [str(os.getpid()), str(options.exit_timeout_s + _EXIT_MARGIN_S)]
    listen = {"http": addresses.http_port, "grpc": addresses.grpc_port, "metrics": addresses.metrics_port}
    triton = [
        str(environment.triton / "bin" / "tritonserver"),
        # relative to the working directory, because Triton starts stubs with unquoted paths through a shell
        "--model-repository=.",
        f"--backend-directory={backends}",
        f"--cache-directory={environment.triton / 'caches'}",
        f"--exit-timeout-secs={options.exit_timeout_s}",
        # keeps running if a model fails, so that its index can report the reason
        "--exit-on-error=false",
        # saves a second per model; the exporter writes complete configurations
        "--disable-auto-complete-config",
        "--allow-gpu-metrics=false",
    ]
    # under load, stubs have crashed while a smaller region was growing
    triton += [f"--backend-config=python,shm-default-byte-size={_SHARED_MEMORY_BYTES}"]
    triton += [f"--model-control-mode={options.model_control}"]
    if options.model_control is ModelControl.POLL:
        triton += [f"--repository-poll-secs={options.poll_interval_s}"]
    elif options.model_control is ModelControl.EXPLICIT:
        triton += ["--load-model=*"]
    for service, port in listen.items():
        triton += [f"--{service}-address={addresses.host}", f"--{service}-port={port}"]
    return supervisor + triton
