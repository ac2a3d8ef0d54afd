"""`qwen3-triton serve`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..server import ModelControl, TlsFiles, TlsFilesError, TritonServer


def serve(
    repository: Annotated[Path, typer.Argument(help="Triton model repository, as written by `export`.")] = Path(
        "model_repository"
    ),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC endpoint, which clients use.")] = 8001,
    http_port: Annotated[int, typer.Option(help="Port of the HTTP endpoint.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="Port of the HTTP endpoint for Prometheus metrics.")] = 8002,
    model_control: Annotated[
        ModelControl,
        typer.Option(
            help="What to do when the repository changes: nothing, poll it and load what changed, or load a model on "
            "request (explicit)."
        ),
    ] = ModelControl.NONE,
    poll_interval_s: Annotated[
        int, typer.Option("--poll-interval", min=1, help="Seconds between two looks at the repository with poll.")
    ] = 15,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(help="Encrypt gRPC with this certificate (PEM). HTTP and metrics then listen on loopback."),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of --tls-certificate (PEM).")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="Reject clients without a certificate of this authority (PEM; mutual TLS)."),
    ] = None,
    log_file: Annotated[Path | None, typer.Option(help="Write Triton's log to this file.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Triton's log.")] = False,
    verify_files: Annotated[
        bool,
        typer.Option("--verify-files", help="First compare the files of every model with the hashes in its manifest."),
    ] = False,
) -> None:
    """Serve a model repository with Triton on this machine until Ctrl-C."""
    from qwen3_triton.server import ServerOptions, start_triton

    options = ServerOptions(
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        model_control=model_control,
        poll_interval_s=poll_interval_s,
        log_file=log_file,
        verify_files=verify_files,
        tls=_tls_files(tls_certificate, tls_key, tls_client_ca),
    )
    show_log = _print_line if verbose else None
    with _exit_on_signals(), start_triton(repository, options, progress=_print_line, show_log=show_log) as server:
        _show_addresses(server, options.tls)
        server.wait()


def _tls_files(certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    if certificate is not None and key is not None:
        return TlsFiles(certificate=certificate, key=key, client_ca=client_ca)
    if certificate is None and key is None and client_ca is None:
        return None
    missing = [name for name, file in (("--tls-certificate", certificate), ("--tls-key", key)) if file is None]
    raise TlsFilesError(f"TLS needs a certificate and its key: add {' and '.join(missing)}")


def _show_addresses(server: TritonServer, tls: TlsFiles | None) -> None:
    addresses = server.addresses
    encryption = "" if tls is None else " (TLS)" if tls.client_ca is None else " (mutual TLS)"
    typer.echo(
        f"ready: {', '.join(server.models)}\n"
        f"  gRPC     {addresses.host}:{addresses.grpc_port}{encryption}\n"
        f"  HTTP     http://{addresses.http_host}:{addresses.http_port}\n"
        f"  metrics  http://{addresses.http_host}:{addresses.metrics_port}/metrics\n"
        "Press Ctrl-C to stop."
    )


def _print_line(line: str) -> None:
    typer.echo(line, err=True)


@contextlib.contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Leave the block without an error on SIGINT or SIGTERM, after its context managers have cleaned up."""

    def stop(*_: object) -> None:
        # a second signal must not interrupt the cleanup
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
