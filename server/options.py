"""Options of a local server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .tls import TlsFiles


class ModelControl(StrEnum):
    """What the server does when the repository changes."""

    NONE = "none"
    """Nothing: models are loaded at the start."""
    POLL = "poll"
    """Look for changes in an interval, and load what has changed."""
    EXPLICIT = "explicit"
    """Load and unload a model on request; all models are loaded at the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Options of a local server. A port that is None is chosen among the free ports."""

    host: str = "127.0.0.1"
    """IPv4 address or host name to listen on; `0.0.0.0` for every interface."""
    grpc_port: int | None = None
    """Port of the gRPC endpoint, which clients use."""
    http_port: int | None = None
    """Port of the HTTP endpoint."""
    metrics_port: int | None = None
    """Port of the Prometheus metrics."""
    ready_timeout_s: float = 600.0
    """Timeout for loading all models in seconds, without the installation of the server."""
    exit_timeout_s: int = 10
    """Time in seconds that queued requests have to finish when the server is stopped, before it is killed."""
    model_control: ModelControl = ModelControl.NONE
    """What the server does when the repository changes."""
    poll_interval_s: int = 15
    """Interval in seconds in which POLL looks for changes."""
    log_file: Path | None = None
    """File for Triton's log; None for a temporary file that is deleted when the server stops."""
    verify_files: bool = False
    """Whether to compare the files of every model with the hashes in its manifest before the server starts."""
    tls: TlsFiles | None = None
    """Files for TLS on the gRPC endpoint; None for no TLS. Triton has no TLS for HTTP and metrics, so with TLS both
    listen on loopback, whatever `host` is."""
