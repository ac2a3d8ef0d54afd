"""Command line of `tritonserver` and its supervisor."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import supervise
from .addresses import Addresses
from .environment import ServerEnvironment
from .options import ModelControl, ServerOptions
from .tls import TlsFiles

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
    return supervisor + triton + _listen(addresses) + ([] if options.tls is None else _tls(options.tls))


def _listen(addresses: Addresses) -> list[str]:
    return [
        f"--http-address={addresses.http_host}",
        f"--http-port={addresses.http_port}",
        f"--grpc-address={addresses.host}",
        f"--grpc-port={addresses.grpc_port}",
        f"--metrics-address={addresses.http_host}",
        f"--metrics-port={addresses.metrics_port}",
    ]


def _tls(files: TlsFiles) -> list[str]:
    # absolute, because the server has another working directory
    options = [
        "--grpc-use-ssl=true",
        f"--grpc-server-cert={files.certificate.absolute()}",
        f"--grpc-server-key={files.key.absolute()}",
    ]
    if files.client_ca is not None:
        # without use-ssl-mutual, Triton asks for no client certificate
        options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={files.client_ca.absolute()}"]
    return options
