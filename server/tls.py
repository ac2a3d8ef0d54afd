"""Files for TLS on the gRPC endpoint, checked before Triton starts.

Triton itself ignores files that it cannot read, and reports invalid ones as a port in use.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from ..client.manifest.input_files import describe_error, read_whole
from .errors import TlsFilesError

_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")
"""PKCS #8, and the older form of OpenSSL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Files in PEM format for TLS on the gRPC endpoint. Triton reads them once, when it starts."""

    certificate: Path
    """Certificate of the server, followed by those of intermediate authorities."""
    key: Path
    """Private key of the certificate, without a password."""
    client_ca: Path | None = None
    """Certificates of the authorities that issue certificates to clients (mutual TLS); clients without such a
    certificate are rejected. None to accept every client."""

    def check(self) -> None:
        """Check that the files are what Triton needs.

        Raises:
            TlsFilesError: A file cannot be read, is not in PEM format, or has a password, or the key is not that of the
                certificate.
        """
        _check_certificates("certificate", self.certificate)
        _check_key(self.key, self.certificate)
        if self.client_ca is not None:
            _check_certificates("client CA", self.client_ca)


def _check_certificates(what: str, file: Path) -> None:
    # comments between the certificates may have any characters
    text = _read(what, file).decode("ascii", errors="ignore")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as exc:
        raise TlsFilesError(
            f"the TLS {what} {file} has no valid certificate in PEM format: give a file with a "
            "'BEGIN CERTIFICATE' block, or convert it with openssl x509"
        ) from exc


def _check_key(file: Path, certificate: Path) -> None:
    content = _read("key", file)
    if any(mark in content for mark in _ENCRYPTED):
        raise TlsFilesError(
            f"the TLS key {file} has a password, which Triton does not support: remove it with openssl pkey"
        )
    if b"PRIVATE KEY-----" not in content:
        raise TlsFilesError(
            f"the TLS key {file} has no private key in PEM format: give a file with a 'BEGIN PRIVATE KEY' block, "
            "or convert it with openssl pkey"
        )
    try:
        # without a password, the library would ask for one on the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, file, password="")
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise TlsFilesError(
                f"the TLS key {file} is not that of the certificate {certificate}: give the two that belong together"
            ) from exc
        raise TlsFilesError(
            f"the TLS key {file} and certificate {certificate} cannot be used: {exc}; create them again"
        ) from exc


def _read(what: str, file: Path) -> bytes:
    try:
        return read_whole(file)
    except OSError as exc:
        raise TlsFilesError(
            f"cannot read the TLS {what} {file}: {describe_error(exc)}; give a readable file in PEM format"
        ) from exc
