"""The addresses that Triton listens on: chosen, and checked before it starts."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InvalidAddressError, PortInUseError

_LARGEST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """One IPv4 address and three ports, all of them free a moment ago."""

    host: str
    grpc_port: int
    http_port: int
    metrics_port: int

    @property
    def reachable_host(self) -> str:
        """Where this machine itself reaches the server: loopback where it listens everywhere."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host


def choose_addresses(host: str, *, grpc_port: int | None, http_port: int | None, metrics_port: int | None) -> Addresses:
    """Addresses on `host` with the ports given and free ones where `None`.

    Raises PortInUseError, or InvalidAddressError where the host is not this machine's or the port is not allowed.
    """
    ip = _resolve(host)
    with contextlib.ExitStack() as held:  # all are held until all are known, so that no port is chosen twice
        return Addresses(
            host=ip,
            grpc_port=held.enter_context(_hold(ip, grpc_port, "--grpc-port")),
            http_port=held.enter_context(_hold(ip, http_port, "--http-port")),
            metrics_port=held.enter_context(_hold(ip, metrics_port, "--metrics-port")),
        )


def port_taken(host: str, port: int, option: str) -> PortInUseError:
    """The error for a port in use; `option` is what the user may change."""
    return PortInUseError(
        f"port {port} on {host} is taken by another process: stop that one, or choose another port with {option}",
        port=port,
    )


def _resolve(host: str) -> str:
    """The IPv4 address of `host`; Triton takes no names."""
    try:
        found = socket.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise InvalidAddressError(
            f"{host!r} is not an IPv4 address or a host name that this machine can resolve ({exc.strerror or exc}): "
            "use --host 127.0.0.1, or 0.0.0.0 to listen on every interface"
        ) from exc
    return str(found[0][4][0])


@contextlib.contextmanager
def _hold(ip: str, port: int | None, option: str) -> Iterator[int]:
    """`port` (a free one where None), bound while the context lasts."""
    if port is not None and not 0 < port <= _LARGEST_PORT:
        raise InvalidAddressError(f"{option} {port} is not a valid port: use 1 to {_LARGEST_PORT}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        if port is not None:
            # as Triton does: a port whose old connections are still closing is free
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((ip, port or 0))
        except OSError as exc:
            if port is not None and exc.errno == errno.EADDRINUSE:
                raise port_taken(ip, port, option) from exc
            raise InvalidAddressError(
                f"cannot listen on {ip} port {port or 'any'}: {exc.strerror}; change --host or {option}"
            ) from exc
        yield int(held.getsockname()[1])
