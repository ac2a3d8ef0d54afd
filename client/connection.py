"""How a client connects: addresses, TLS, credentials and the options of its gRPC channels."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from .errors import InvalidInputError
from .manifest.input_files import describe_error

Metadata = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""gRPC metadata to send with each request, or a function that returns it, for example from a context variable."""

_CHANNEL_OPTIONS = (
    # a reply of 4,096 rows × 4,096 floats is 64 MiB, and gRPC's default limit is 4 MiB
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # notices a connection that a load balancer dropped silently within about a minute; more pings without messages
    # between them would make Triton close the connection during long calls
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # a new channel has a connection of its own, rather than that of another channel to the same server
    ("grpc.use_local_subchannel_pool", 1),
    # by default a channel does not try a server again for up to two minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # a name with several addresses, such as a headless service, has a connection to each
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
)
_METADATA_KEY = re.compile(r"[0-9a-z_.-]+")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """TLS of a connection. Without arguments, the server's certificate must be signed by an authority that gRPC knows.

    Args:
        ca: PEM file of the authorities that may sign the server's certificate.
        certificate: PEM file of the client's certificate chain, for mutual TLS.
        key: PEM file of its private key.
        server_name: Name in the server's certificate, if it is not the host in the URL.
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidInputError("tls: certificate and key belong together; give both or none")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; raise InvalidInputError for one that cannot be read or is not PEM."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read_pem(self.ca, "ca"),
            private_key=_read_pem(self.key, "key"),
            certificate_chain=_read_pem(self.certificate, "certificate"),
        )


def _read_pem(file: Path | str | None, name: str) -> bytes | None:
    if file is None:
        return None
    try:
        content = Path(file).read_bytes()
    except OSError as exc:
        raise InvalidInputError(f"tls: cannot read {name} {file}: {describe_error(exc)}") from exc
    if b"-----BEGIN " not in content:
        raise InvalidInputError(f"tls: {name} {file} is not a PEM file: convert it with openssl")
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """Where and how a client connects, documented at `ModelClient`."""

    urls: tuple[str, ...]
    tls: TlsOptions | None = None
    token: str | None = field(default=None, repr=False)
    metadata: Metadata | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.urls:
            raise InvalidInputError("url is an empty list: give HOST:PORT of Triton's gRPC port")
        for url in self.urls:
            _check_url(url)
        if len(set(self.urls)) < len(self.urls):
            raise InvalidInputError("url has the same server twice")
        self.call_metadata()

    @classmethod
    def create(
        cls, url: str | Sequence[str], tls: TlsOptions | None, token: str | None, metadata: Metadata | None
    ) -> ConnectionOptions:
        """Return the options of a client with one URL or several; raise InvalidInputError if one is invalid."""
        urls = (url,) if isinstance(url, str) else tuple(url)
        return cls(urls=urls, tls=tls, token=token, metadata=metadata)

    @property
    def channel_options(self) -> list[tuple[str, str | int]]:
        """gRPC's channel arguments."""
        options: list[tuple[str, str | int]] = list(_CHANNEL_OPTIONS)
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def call_metadata(self) -> list[tuple[str, str]]:
        """Return the metadata of the next request; raise InvalidInputError, without the values, if it is invalid."""
        given = self.metadata() if callable(self.metadata) else self.metadata or {}
        found = list(given.items())
        if self.token is not None:
            found.append(("authorization", f"Bearer {self.token}"))
        for key, value in found:
            if not _METADATA_KEY.fullmatch(key) or key.startswith("grpc-") or key.endswith("-bin"):
                raise InvalidInputError(
                    f"metadata key {key!r}: use lower-case letters, digits and - _ . only, and neither grpc- in front "
                    "nor -bin at the end"
                )
            if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
                raise InvalidInputError(f"the value of metadata key {key!r} is not a string of printable ASCII")
        return found


def _check_url(url: str) -> None:
    """Raise InvalidInputError if `url` is empty, has a scheme, or a port that does not exist."""
    if not isinstance(url, str) or not url.strip() or "://" in url:
        raise InvalidInputError(f"url {url!r}: give HOST:PORT of Triton's gRPC port, without a scheme")
    port = url.rpartition(":")[2]
    if port.removeprefix("-").isdigit() and not 0 < int(port[:9]) < 65_536:
        raise InvalidInputError(f"url {url!r}: a port is a number from 1 to 65535")
