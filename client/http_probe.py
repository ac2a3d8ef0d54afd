"""Whether a server that does not speak gRPC speaks HTTP, to explain a failed connection."""

from __future__ import annotations

import socket

_TIMEOUT_S = 1.0
_REQUEST = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def speaks_http(url: str) -> bool:
    """Return whether `url`, HOST:PORT, replies to an HTTP request within a second; never raises."""
    host, _, port = url.rpartition(":")
    if not host or not port.isdecimal():
        return False
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.sendall(_REQUEST)
            return connection.recv(16).startswith(b"HTTP/")
    except (OSError, ValueError, OverflowError):
        return False
