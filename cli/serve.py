"""`qwen3-triton serve`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer


def serve(
    repository: Annotated[Path, typer.Argument(help="Model repository, as `export` writes it.")] = Path(
        "model_repository"
    ),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC interface, which clients use.")] = 8001,
    http_port: Annotated[int, typer.Option(help="Port of the HTTP interface.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="Port of the Prometheus metrics.")] = 8002,
    log_file: Annotated[Path | None, typer.Option(help="Write Triton's log to this file.")] = None,
) -> None:
    """Serve a model repository with a real Triton on this machine, until Ctrl-C."""
    from qwen3_triton.server import ServerOptions, start_triton

    options = ServerOptions(
        host=host, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port, log_file=log_file
    )
    with _until_stopped(), start_triton(repository, options, progress=_tell) as server:
        listens = server.addresses
        typer.echo(
            f"ready: {', '.join(server.models)}\n"
            f"  gRPC     {listens.host}:{listens.grpc_port}\n"
            f"  HTTP     http://{listens.host}:{listens.http_port}\n"
            f"  metrics  http://{listens.host}:{listens.metrics_port}/metrics\n"
            "Ctrl-C stops it."
        )
        server.wait()


def _tell(line: str) -> None:
    typer.echo(line, err=True)


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """Turns SIGINT and SIGTERM into the quiet end of the block; what the block holds is let go in order."""

    def stop(*_: object) -> None:
        # a second signal must not disturb the clean-up that the first began
        for known in handlers:
            signal.signal(known, signal.SIG_IGN)
        raise KeyboardInterrupt

    handlers = {known: signal.signal(known, stop) for known in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    finally:
        for known, handler in handlers.items():
            signal.signal(known, handler)
