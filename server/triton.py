"""Start, supervision and stop of a local `tritonserver`."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from . import supervise
from .addresses import Addresses, choose_addresses, port_in_use
from .backend_directory import ensure_backend_directory
from .command import server_command
from .environment import Progress, ServerEnvironment, ensure_environment, ignore_progress
from .errors import (
    LocalServerError,
    ModelLoadError,
    PortInUseError,
    ServerExitedError,
    ServerNotReadyError,
    TlsFilesError,
)
from .file_verification import verify_files
from .log import ServerLog
from .options import ServerOptions
from .readiness import ModelStates, fetch_states, find_causes, find_failure, find_port_in_use, find_rejected_tls
from .repository import find_models

_POLL_S = 0.05
_PORT_ATTEMPTS = 3


class TritonServer:
    """A running server whose models are all ready, created by `start_triton`.

    As a context manager, it stops the server at the end of the block. The server also stops when the calling process
    exits, even if that process is killed.
    """

    def __init__(self, process: subprocess.Popen[bytes], addresses: Addresses, log: ServerLog) -> None:
        self._process = process
        self._addresses = addresses
        self._log = log
        self.models: tuple[str, ...] = ()
        """Names of the ready models, sorted."""

    @property
    def grpc_url(self) -> str:
        """`HOST:PORT` of the gRPC endpoint, as the clients expect it."""
        return f"{self._addresses.reachable_host}:{self._addresses.grpc_port}"

    @property
    def http_url(self) -> str:
        """`http://HOST:PORT` of the HTTP endpoint."""
        return f"http://{self._addresses.reachable_http_host}:{self._addresses.http_port}"

    @property
    def metrics_url(self) -> str:
        """`http://HOST:PORT/metrics` of the Prometheus metrics."""
        return f"http://{self._addresses.reachable_http_host}:{self._addresses.metrics_port}/metrics"

    @property
    def addresses(self) -> Addresses:
        """Addresses and ports that the server listens on."""
        return self._addresses

    @property
    def pid(self) -> int:
        """Process id of the supervisor, the parent process of `tritonserver`."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server process is running."""
        return self._process.poll() is None

    def log_text(self) -> str:
        """Return the last 4 MB of Triton's log; empty after `stop`."""
        return self._log.text()

    def wait(self) -> None:
        """Block until the server exits.

        Raises:
            ServerExitedError: Always, when the server has exited.
        """
        self._process.wait()
        raise _exit_error(self._process, self._log)

    def stop(self) -> None:
        """Stop the server and all of its processes. Idempotent."""
        with self._log:
            if self.running:
                self._process.terminate()
            self._process.wait()
            # the supervisor has done this already, unless it was killed
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
    progress: Progress = ignore_progress,
    show_log: Callable[[str], None] | None = None,
    environment: ServerEnvironment | None = None,
) -> TritonServer:
    """Start a server for every model in a repository and wait until all of them are ready.

    The first call installs the server, see `ensure_environment`. No process is left running if an error is raised.

    Args:
        repository: Triton model repository; every sub-directory is a model.
        options: Options of the server; None for the defaults.
        progress: Called with one line of text per step.
        show_log: Called with each line of Triton's log, in a separate thread; None to show nothing.
        environment: Installed environment; None to install or reuse the default one.

    Raises:
        EmptyRepositoryError: The repository does not exist, or has no models.
        EnvironmentInstallError: The server cannot be installed on this machine.
        InvalidAddressError: The server cannot listen on the host or a port; PortInUseError if a port is in use.
        InvalidModelNameError: The server cannot load a model with such a name.
        ModelFilesError: `options.verify_files` is set, and a file is missing or differs.
        ModelLoadError: A model did not load.
        ServerExitedError: The server exited unexpectedly.
        ServerNotReadyError: The models were not loaded within `options.ready_timeout_s`.
        TlsFilesError: A file of `options.tls` is missing or invalid.

    Example:
        ```python
        with start_triton(Path("model_repository")) as server:
            print(server.models, server.grpc_url)
        ```
    """
    options = options or ServerOptions()
    repository = repository.resolve()
    names = find_models(repository)
    if options.tls is not None:
        options.tls.check()
    # reports a port in use before the installation, which takes up to a minute
    _choose(options)
    if options.verify_files:
        progress(f"verifying the files of {', '.join(names)}")
        verify_files(repository, names)
    environment = environment or ensure_environment(progress)
    for attempt in range(_PORT_ATTEMPTS):
        addresses = _choose(options)
        progress(f"loading {', '.join(names)}")
        with contextlib.ExitStack() as undo:
            log = undo.enter_context(ServerLog(options.log_file, show_log))
            server = undo.enter_context(_launch(repository, options, addresses, environment, log))
            try:
                server.models = _wait_until_ready(server, repository, names, options.ready_timeout_s)
            except PortInUseError as exc:
                # another process may have taken a port since it was chosen
                requested = (options.grpc_port, options.http_port, options.metrics_port)
                if exc.port in requested or attempt + 1 == _PORT_ATTEMPTS:
                    raise
                continue
            server._process.send_signal(supervise.WATCH_SIGNAL)
            undo.pop_all()
            return server
    raise AssertionError("the last attempt returns or raises")


def _choose(options: ServerOptions) -> Addresses:
    return choose_addresses(
        options.host,
        grpc_port=options.grpc_port,
        http_port=options.http_port,
        metrics_port=options.metrics_port,
        local_http=options.tls is not None,
    )


def _launch(
    repository: Path, options: ServerOptions, addresses: Addresses, environment: ServerEnvironment, log: ServerLog
) -> TritonServer:
    """Start the processes without waiting for the models."""
    backends = ensure_backend_directory(environment)
    command = server_command(options, addresses, environment, backends)
    process = subprocess.Popen(
        command,
        cwd=repository,
        env=environment.variables(),
        stdin=subprocess.DEVNULL,
        stdout=log.file,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C in the terminal reaches only the caller, which then stops the server
    )
    return TritonServer(process, addresses, log)


def _wait_until_ready(
    server: TritonServer, repository: Path, names: tuple[str, ...], timeout_s: float
) -> tuple[str, ...]:
    """Wait until every model is ready and return their names."""
    deadline = time.monotonic() + timeout_s
    while (states := fetch_states(server.addresses)) is None:
        if not server.running:
            raise _exit_error(server._process, server._log, server.addresses)
        if time.monotonic() > deadline:
            raise ServerNotReadyError(
                f"the models in {repository} were not ready within {timeout_s:g} s: increase ready_timeout_s, "
                "or look for the reason in Triton's log",
                log_tail=server._log.tail(),
                option="ready_timeout_s",
            )
        time.sleep(_POLL_S)
    # the response was another process's if the server has exited
    if not server.running:
        raise _exit_error(server._process, server._log, server.addresses)
    _raise_for_failed(states, repository, names, server.log_text())
    return states.ready


def _raise_for_failed(states: ModelStates, repository: Path, names: tuple[str, ...], log: str) -> None:
    causes = find_causes(states, names, log)
    if causes:
        reasons = "; ".join(f"{name}: {cause}" for name, cause in causes.items())
        folders = ", ".join(str(repository / name) for name in causes)
        raise ModelLoadError(
            f"{len(causes)} of {len(names)} models did not load: {reasons} -- fix or remove {folders}, or export again",
            causes=causes,
        )


def _exit_error(
    process: subprocess.Popen[bytes], log: ServerLog, addresses: Addresses | None = None
) -> LocalServerError:
    """Return the error for a server that has exited, with the reason from its log."""
    rejected = find_rejected_tls(log.text())
    if rejected is not None:
        return TlsFilesError(f"Triton cannot use the TLS files: {rejected}; create certificate and key again")
    port = find_port_in_use(log.text())
    if port is not None and addresses is not None:
        option = {addresses.grpc_port: "grpc_port", addresses.http_port: "http_port"}.get(port, "metrics_port")
        return port_in_use(addresses.host if option == "grpc_port" else addresses.http_host, port, option)
    failure = find_failure(log.text())
    if failure is not None:
        return ServerExitedError(
            f"{failure}; the server was stopped, because it would fail every request for this model: start it again",
            log_tail=log.tail(),
        )
    tail = log.tail()
    last = tail.splitlines()[-1] if tail else "its log is empty"
    remedy = f"see {log.path}" if log.path else "set log_file to keep the complete log"
    return ServerExitedError(
        f"tritonserver exited unexpectedly (status {process.returncode}): {last} -- {remedy}",
        log_tail=tail,
        option=None if log.path else "log_file",
    )
