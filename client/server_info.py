"""What a server says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

READY_TIMEOUT_S = 2.0
"""Timeout of a server that is asked whether the model is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """Name, version and extensions of one server, which it calls its metadata."""

    url: str
    """`HOST:PORT`."""
    name: str
    """`triton`, or another implementation of the protocol."""
    version: str
    """Version of the server, which is not that of NVIDIA's image."""
    extensions: tuple[str, ...]
    """Extensions of the protocol that the server offers."""


def read_server_info(url: str, response: Any) -> ServerInfo:
    """Read the ServerMetadataResponse of the server at `url`."""
    return ServerInfo(
        url=url, name=response.name, version=response.version, extensions=tuple(map(str, response.extensions))
    )
