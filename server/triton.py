"""Starts, watches and stops the one `tritonserver` of a caller."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from . import supervise
from .addresses import Addresses, choose_addresses, port_taken
from .backend_directory import ensure_backend_directory
from .environment import Progress, ServerEnvironment, ensure_environment, no_progress
from .errors import LocalServerError, ModelLoadError, PortInUseError, ServerExitedError, ServerNotReadyError
from .log import Log
from .readiness import ModelStates, ask_states, find_causes, find_port_in_use
from .repository import find_models

_POLL_S = 0.05
_PORT_ATTEMPTS = 3
_EXIT_MARGIN_S = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How to run Triton; ports that are None are chosen among the free ones."""

    host: str = "127.0.0.1"
    grpc_port: int | None = None
    http_port: int | None = None
    metrics_port: int | None = None
    ready_timeout_s: float = 600.0
    """For loading all models, without the installation."""
    exit_timeout_s: int = 10
    """For answering what is queued at a stop; after that it is killed."""
    response_cache_bytes: int = 0
    """Size of Triton's local response cache; 0 is none."""
    log_file: Path | None = None
    """Where Triton's log goes; None keeps it only while the server runs."""


class TritonServer:
    """A running server, all of whose models are ready; a context manager that stops it.

    `start_triton` makes it. When this process dies, however it dies, the server ends too.
    """

    def __init__(self, process: subprocess.Popen[bytes], addresses: Addresses, log: Log) -> None:
        self._process = process
        self._addresses = addresses
        self._log = log
        self.models: tuple[str, ...] = ()
        """Names of the models that are ready, sorted."""

    @property
    def grpc_url(self) -> str:
        """`HOST:PORT`, as the client takes it."""
        return f"{self._addresses.reachable_host}:{self._addresses.grpc_port}"

    @property
    def http_url(self) -> str:
        """`http://HOST:PORT`."""
        return f"http://{self._addresses.reachable_host}:{self._addresses.http_port}"

    @property
    def metrics_url(self) -> str:
        """`http://HOST:PORT/metrics`."""
        return f"http://{self._addresses.reachable_host}:{self._addresses.metrics_port}/metrics"

    @property
    def addresses(self) -> Addresses:
        """What it listens on."""
        return self._addresses

    @property
    def pid(self) -> int:
        """Of the supervising process, whose child `tritonserver` is."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def log_text(self) -> str:
        """Triton's log so far, its last 4 MB; empty after `stop`."""
        return self._log.text()

    def wait(self) -> None:
        """Blocks until the server ends by itself, and then raises ServerExitedError."""
        self._process.wait()
        raise _died(self._process, self._log)

    def stop(self) -> None:
        """Ends the server and everything that it started; does nothing the second time."""
        with self._log:
            if self.running:
                self._process.terminate()
            self._process.wait()
            # done by the supervisor already, unless that one was killed
            supervise.remove_shared_memory(supervise.shared_memory_prefix(self._process.pid))

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_triton(
    repository: Path,
    options: ServerOptions | None = None,
    *,
    progress: Progress = no_progress,
    environment: ServerEnvironment | None = None,
) -> TritonServer:
    """A server for every model in `repository`, ready to answer; installs it first where needed.

    Raises EmptyRepositoryError, EnvironmentInstallError, InvalidAddressError, PortInUseError, ModelLoadError,
    ServerExitedError or ServerNotReadyError; nothing runs then.
    """
    options = options or ServerOptions()
    repository = repository.resolve()
    names = find_models(repository)
    _choose(options)  # a port that is taken is told before a minute of installing
    environment = environment or ensure_environment(progress)
    for attempt in range(_PORT_ATTEMPTS):
        addresses = _choose(options)
        progress(f"loading {', '.join(names)}")
        with contextlib.ExitStack() as undo:
            server = undo.enter_context(_launch(repository, options, addresses, environment))
            try:
                server.models = _await_models(server, repository, names, options.ready_timeout_s)
            except PortInUseError as exc:
                # a free port that was chosen here may be gone a moment later
                given = (options.grpc_port, options.http_port, options.metrics_port)
                if exc.port in given or attempt + 1 == _PORT_ATTEMPTS:
                    raise
                continue
            undo.pop_all()
            return server
    raise AssertionError("the last attempt returns or raises")


def _choose(options: ServerOptions) -> Addresses:
    return choose_addresses(
        options.host,
        grpc_port=options.grpc_port,
        http_port=options.http_port,
        metrics_port=options.metrics_port,
    )


def _launch(
    repository: Path, options: ServerOptions, addresses: Addresses, environment: ServerEnvironment
) -> TritonServer:
    """The process, just started."""
    backends = ensure_backend_directory(environment)
    command = _command(repository, options, addresses, environment, backends)
    log = Log(options.log_file)
    process = subprocess.Popen(
        command,
        env=environment.variables(),
        stdin=subprocess.DEVNULL,
        stdout=log.file,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C at the terminal reaches the caller alone, who then stops the server
    )
    return TritonServer(process, addresses, log)


def _command(
    repository: Path,
    options: ServerOptions,
    addresses: Addresses,
    environment: ServerEnvironment,
    backends: Path,
) -> list[str]:
    supervisor = [sys.executable, "-I", "-S", str(Path(supervise.__file__).resolve())]
    supervisor += [str(os.getpid()), str(options.exit_timeout_s + _EXIT_MARGIN_S)]
    listen = {"http": addresses.http_port, "grpc": addresses.grpc_port, "metrics": addresses.metrics_port}
    triton = [
        str(environment.triton / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--cache-directory={environment.triton / 'caches'}",
        f"--exit-timeout-secs={options.exit_timeout_s}",
        # it stays up when a model fails, so that its index can be asked why
        "--exit-on-error=false",
        # saves each model a second; the exporter writes complete configurations
        "--disable-auto-complete-config",
        "--allow-gpu-metrics=false",
    ]
    for service, port in listen.items():
        triton += [f"--{service}-address={addresses.host}", f"--{service}-port={port}"]
    if options.response_cache_bytes:
        triton.append(f"--cache-config=local,size={options.response_cache_bytes}")
    return supervisor + triton


def _await_models(server: TritonServer, repository: Path, names: tuple[str, ...], timeout_s: float) -> tuple[str, ...]:
    """Names of the ready models, once every model is."""
    deadline = time.monotonic() + timeout_s
    while (states := ask_states(server.addresses)) is None:
        if not server.running:
            raise _died(server._process, server._log, server.addresses)
        if time.monotonic() > deadline:
            raise ServerNotReadyError(
                f"the models of {repository} were not ready within {timeout_s:g} s: give a longer time, "
                "or look into the log",
                log_tail=server._log.tail(),
            )
        time.sleep(_POLL_S)
    if not server.running:  # then somebody else answered on these ports
        raise _died(server._process, server._log, server.addresses)
    _refuse_failed(states, repository, names, server.log_text())
    return states.ready


def _refuse_failed(states: ModelStates, repository: Path, names: tuple[str, ...], log: str) -> None:
    causes = find_causes(states, names, log)
    if causes:
        reasons = "; ".join(f"{name}: {cause}" for name, cause in causes.items())
        folders = ", ".join(str(repository / name) for name in causes)
        raise ModelLoadError(
            f"{len(causes)} of {len(names)} models did not load: {reasons} -- fix or remove {folders}, "
            "or export again with --overwrite",
            causes=causes,
        )


def _died(process: subprocess.Popen[bytes], log: Log, addresses: Addresses | None = None) -> LocalServerError:
    """Why the process ended, as far as its log tells."""
    port = find_port_in_use(log.text())
    if port is not None and addresses is not None:
        options = {addresses.grpc_port: "--grpc-port", addresses.http_port: "--http-port"}
        return port_taken(addresses.host, port, options.get(port, "--metrics-port"))
    tail = log.tail()
    last = tail.splitlines()[-1] if tail else "its log is empty"
    where = f"see {log.path}" if log.path else "keep its log with --log-file to see more"
    return ServerExitedError(
        f"tritonserver exited unexpectedly (status {process.returncode}): {last} -- {where}", log_tail=tail
    )
