"""Certificates of a test authority, which the `openssl` command (3.0 or newer) issues."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOCAL_NAMES = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate and its private key as files in PEM format."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """An authority whose own files, and those that it issues, are in `folder`."""

    folder: Path
    own: Certificate

    @classmethod
    def create(cls, folder: Path) -> CertificateAuthority:
        """Create an authority in a new folder."""
        folder.mkdir(parents=True)
        return cls(folder=folder, own=_request(folder, "ca", []))

    @property
    def certificate(self) -> Path:
        """Certificate that clients and servers trust."""
        return self.own.certificate

    def issue(self, name: str, hosts: Sequence[str] = LOCAL_NAMES) -> Certificate:
        """Issue a certificate for host names and IP addresses, with files of this name."""
        names = ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)
        signed = ["-CA", str(self.own.certificate), "-CAkey", str(self.own.key)]
        extensions = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName={names}"]
        return _request(self.folder, name, [*signed, *extensions])


def _request(folder: Path, name: str, options: Sequence[str]) -> Certificate:
    made = Certificate(certificate=folder / f"{name}.crt", key=folder / f"{name}.key")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.certificate, *options)  # fmt: skip
    return made


def openssl(*arguments: object) -> None:
    """Run `openssl` and fail with its output if it fails."""
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
