"""Selection of the addresses that Triton listens on, checked before it starts."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InvalidAddressError, PortInUseError

_LARGEST_PORT = 65535
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """IPv4 addresses and ports that a server listens on."""

    host: str
    """IPv4 address of the gRPC endpoint; `0.0.0.0` for every interface."""
    http_host: str
    """IPv4 address of the HTTP endpoint and the metrics: that of gRPC without TLS, loopback with it."""
    grpc_port: int
    """Port of the gRPC endpoint, which clients use."""
    http_port: int
    """Port of the HTTP endpoint."""
    metrics_port: int
    """Port of the Prometheus metrics."""

    @property
    def reachable_host(self) -> str:
        """Address for connections to gRPC from this machine: loopback if the server listens on every interface."""
        return _reachable(self.host)

    @property
    def reachable_http_host(self) -> str:
        """Address for connections to HTTP and the metrics from this machine."""
        return _reachable(self.http_host)


def choose_addresses(
    host: str, *, grpc_port: int | None, http_port: int | None, metrics_port: int | None, local_http: bool = False
) -> Addresses:
    """Choose addresses on `host`, with a free port for each port that is None.

    Args:
        host: IPv4 address or host name.
        grpc_port: Port of the gRPC endpoint.
        http_port: Port of the HTTP endpoint.
        metrics_port: Port of the metrics.
        local_http: Whether HTTP and metrics are on loopback instead of `host`.

    Raises:
        PortInUseError: Another process listens on a given port.
        InvalidAddressError: The host does not belong to this machine, or a port is not allowed.
    """
    ip = _resolve(host)
    http_ip = _LOOPBACK if local_http else ip
    # all ports stay bound until the last one is chosen, so that they differ
    with contextlib.ExitStack() as bound:
        return Addresses(
            host=ip,
            http_host=http_ip,
            grpc_port=bound.enter_context(_bind(ip, grpc_port, "grpc_port")),
            http_port=bound.enter_context(_bind(http_ip, http_port, "http_port")),
            metrics_port=bound.enter_context(_bind(http_ip, metrics_port, "metrics_port")),
        )


def port_in_use(host: str, port: int, option: str) -> PortInUseError:
    """Return the error for a port in use; `option` is the field of ServerOptions that chooses the port."""
    return PortInUseError(
        f"port {port} on {host} is in use by another process: stop that process, or choose another {option}",
        port=port,
        option=option,
    )


def _reachable(host: str) -> str:
    return _LOOPBACK if host == "0.0.0.0" else host


def _resolve(host: str) -> str:
    """Return the IPv4 address of `host`, because Triton does not accept host names."""
    try:
        found = socket.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise InvalidAddressError(
            f"{host!r} is not an IPv4 address or a host name that this machine can resolve ({exc.strerror or exc}): "
            "use 127.0.0.1 as host, or 0.0.0.0 to listen on every interface",
            option="host",
        ) from exc
    return str(found[0][4][0])


@contextlib.contextmanager
def _bind(ip: str, port: int | None, option: str) -> Iterator[int]:
    """Bind `port`, or a free one for None, inside the context."""
    if port is not None and not 0 < port <= _LARGEST_PORT:
        raise InvalidAddressError(f"{option} {port} is not a valid port: use 1 to {_LARGEST_PORT}", option=option)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound:
        if port is not None:
            # as Triton does: a port whose old connections are still closing counts as free
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((ip, port or 0))
        except OSError as exc:
            if port is not None and exc.errno == errno.EADDRINUSE:
                raise port_in_use(ip, port, option) from exc
            changed = "host" if exc.errno == errno.EADDRNOTAVAIL else option
            raise InvalidAddressError(
                f"cannot listen on {ip} port {port or 'any'}: {exc.strerror}; choose another {changed}", option=changed
            ) from exc
        yield int(bound.getsockname()[1])
