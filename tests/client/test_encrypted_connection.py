"""TLS and mutual TLS between the clients and a gRPC server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from certificates import Certificate, CertificateAuthority
from fake_triton import MODEL, FakeTriton
from sample_manifest import DIMENSION

from qwen3_triton.client import (
    EmbeddingClient,
    EmbeddingManifest,
    InvalidInputError,
    ServerUnavailableError,
    TlsOptions,
)

pytestmark = pytest.mark.usefixtures("both_clients")

TIMEOUT_S = 5


@pytest.fixture(scope="module")
def own(authority: CertificateAuthority) -> Certificate:
    return authority.issue("tls-client", hosts=["client.test"])


def serve(manifest: EmbeddingManifest, issued: Certificate, client_ca: Path | None) -> FakeTriton:
    credentials = grpc.ssl_server_credentials(
        [(issued.key.read_bytes(), issued.certificate.read_bytes())],
        root_certificates=None if client_ca is None else client_ca.read_bytes(),
        require_client_auth=client_ca is not None,
    )
    return FakeTriton(manifest.to_json(), DIMENSION, credentials=credentials)


@pytest.fixture
def encrypted(manifest: EmbeddingManifest, authority: CertificateAuthority) -> Iterator[FakeTriton]:
    with serve(manifest, authority.issue("tls-server"), None) as triton:
        yield triton


@pytest.fixture
def mutual(manifest: EmbeddingManifest, authority: CertificateAuthority) -> Iterator[FakeTriton]:
    with serve(manifest, authority.issue("tls-server"), authority.certificate) as triton:
        yield triton


def connect(triton: FakeTriton, tls: TlsOptions | None) -> EmbeddingClient:
    return EmbeddingClient(triton.url, MODEL, tls=tls, timeout_s=TIMEOUT_S)


def test_encrypted_connection(encrypted: FakeTriton, authority: CertificateAuthority) -> None:
    with connect(encrypted, TlsOptions(ca=authority.certificate)) as client:
        assert client.embed_documents(["a", "b"]).shape == (2, DIMENSION)


def test_client_without_tls(encrypted: FakeTriton) -> None:
    with pytest.raises(ServerUnavailableError, match="and whether it requires TLS"):
        connect(encrypted, None)


def test_server_of_another_authority(encrypted: FakeTriton) -> None:
    with pytest.raises(ServerUnavailableError, match="no Triton server reachable"):
        connect(encrypted, TlsOptions())


def test_mutual_tls(mutual: FakeTriton, authority: CertificateAuthority, own: Certificate) -> None:
    with connect(mutual, TlsOptions(ca=authority.certificate, certificate=own.certificate, key=own.key)) as client:
        assert client.embed_documents(["a", "b"]).shape == (2, DIMENSION)
    with pytest.raises(ServerUnavailableError):
        connect(mutual, TlsOptions(ca=authority.certificate))


def test_name_in_the_certificate(manifest: EmbeddingManifest, authority: CertificateAuthority) -> None:
    with serve(manifest, authority.issue("tls-named", hosts=["triton.test"]), None) as triton:
        with pytest.raises(ServerUnavailableError):
            connect(triton, TlsOptions(ca=authority.certificate))
        with connect(triton, TlsOptions(ca=authority.certificate, server_name="triton.test")) as client:
            assert client.embed_documents(["a"]).shape == (1, DIMENSION)


def test_key_of_another_certificate(mutual: FakeTriton, authority: CertificateAuthority, own: Certificate) -> None:
    other = authority.issue("tls-other")
    with pytest.raises((ServerUnavailableError, InvalidInputError)):
        connect(mutual, TlsOptions(ca=authority.certificate, certificate=own.certificate, key=other.key))
