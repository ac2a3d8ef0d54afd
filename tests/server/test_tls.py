"""TLS on the gRPC endpoint: Triton's options, errors of the files, and who can connect to a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from certificates import Certificate, CertificateAuthority, openssl
from test_triton_lifecycle import free_ports, listening_addresses, serve_command
from tritonclient.grpc import service_pb2, service_pb2_grpc

from qwen3_triton.server import (
    Addresses,
    ServerEnvironment,
    ServerOptions,
    TlsFiles,
    TlsFilesError,
    TritonServer,
    start_triton,
)
from qwen3_triton.server.addresses import choose_addresses
from qwen3_triton.server.command import server_command

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def issued(authority: CertificateAuthority) -> Certificate:
    """The server's certificate."""
    return authority.issue("server")


@pytest.fixture(scope="module")
def client(authority: CertificateAuthority) -> Certificate:
    """A client's certificate."""
    return authority.issue("client", hosts=["client.test"])


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """Another authority, which neither side trusts."""
    return CertificateAuthority.create(tmp_path_factory.mktemp("stranger") / "ca")


def files_of(issued: Certificate, client_ca: Path | None = None) -> TlsFiles:
    return TlsFiles(certificate=issued.certificate, key=issued.key, client_ca=client_ca)


def options_of(tls: TlsFiles | None) -> list[str]:
    """Return Triton's options for gRPC."""
    addresses = Addresses(host="0.0.0.0", http_host="127.0.0.1", grpc_port=1, http_port=2, metrics_port=3)
    command = server_command(ServerOptions(tls=tls), addresses, ServerEnvironment(Path("env")), Path("backends"))
    return [option for option in command if option.startswith("--grpc")]


def test_options_of_triton(issued: Certificate, authority: CertificateAuthority) -> None:
    plain = ["--grpc-address=0.0.0.0", "--grpc-port=1"]
    tls = [
        "--grpc-use-ssl=true",
        f"--grpc-server-cert={issued.certificate}",
        f"--grpc-server-key={issued.key}",
    ]
    mutual = ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={authority.certificate}"]
    assert options_of(None) == plain
    assert options_of(files_of(issued)) == plain + tls
    assert options_of(files_of(issued, authority.certificate)) == plain + tls + mutual


def test_relative_paths_become_absolute() -> None:
    # the server runs in the repository
    options = options_of(TlsFiles(certificate=Path("a.crt"), key=Path("a.key"), client_ca=Path("ca.crt")))
    assert f"--grpc-server-cert={Path.cwd() / 'a.crt'}" in options
    assert f"--grpc-server-key={Path.cwd() / 'a.key'}" in options
    assert f"--grpc-root-cert={Path.cwd() / 'ca.crt'}" in options


def test_http_is_on_loopback_only_with_tls() -> None:
    ports: dict[str, Any] = {"grpc_port": None, "http_port": None, "metrics_port": None}
    assert choose_addresses("0.0.0.0", **ports).http_host == "0.0.0.0"
    addresses = choose_addresses("0.0.0.0", **ports, local_http=True)
    assert (addresses.host, addresses.http_host) == ("0.0.0.0", "127.0.0.1")


def test_valid_files(issued: Certificate, authority: CertificateAuthority, tmp_path: Path) -> None:
    files_of(issued, authority.certificate).check()
    # as issuers and key stores write them: a chain, comments, certificate and key in one file
    chain = tmp_path / "chain.pem"
    parts = [issued.key, issued.certificate, authority.certificate]
    chain.write_text("subject=Prüfstelle\n" + "".join(part.read_text() for part in parts), encoding="utf-8")
    TlsFiles(certificate=chain, key=chain, client_ca=chain).check()


def write_der(certificate: Path) -> Path:
    openssl("x509", "-in", certificate, "-outform", "der", "-out", der := certificate.with_suffix(".der"))
    return der


@pytest.mark.parametrize("what", ["certificate", "client CA"])
def test_certificate_that_is_not_pem(what: str, issued: Certificate, tmp_path: Path) -> None:
    name = what.lower().replace(" ", "_")
    intact = issued.certificate.read_text()
    (cut := tmp_path / "cut").write_text(intact[: len(intact) // 2])
    (empty := tmp_path / "empty").touch()
    for wrong in (write_der(issued.certificate), issued.key, cut, empty):
        tls = TlsFiles(**{"certificate": issued.certificate, "key": issued.key, name: wrong})
        with pytest.raises(TlsFilesError, match=f"^the TLS {what} {re.escape(str(wrong))} has no valid certificate"):
            tls.check()


@pytest.mark.parametrize("what", ["certificate", "key", "client CA"])
def test_file_that_cannot_be_read(what: str, issued: Certificate, tmp_path: Path) -> None:
    name = what.lower().replace(" ", "_")
    os.mkfifo(pipe := tmp_path / "pipe")
    for wrong, reason in (
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "not a regular file"),
        (pipe, "not a regular file"),
    ):
        tls = TlsFiles(**{"certificate": issued.certificate, "key": issued.key, name: wrong})
        with pytest.raises(TlsFilesError) as caught:
            tls.check()
        assert str(caught.value) == f"cannot read the TLS {what} {wrong}: {reason}; give a readable file in PEM format"


def test_key_that_cannot_be_used(issued: Certificate, client: Certificate, tmp_path: Path) -> None:
    (broken := tmp_path / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    openssl("pkey", "-in", issued.key, "-aes256", "-passout", "pass:x", "-out", protected := tmp_path / "protected.key")
    openssl("ec", "-in", issued.key, "-aes256", "-passout", "pass:x", "-out", older := tmp_path / "older.key")
    for wrong, message in (
        (issued.certificate, "has no private key in PEM format"),
        (protected, "has a password"),
        (older, "has a password"),
        (client.key, f"is not that of the certificate {issued.certificate}"),
        (broken, f"and certificate {issued.certificate} cannot be used"),
    ):
        with pytest.raises(TlsFilesError, match=f"^the TLS key {re.escape(str(wrong))} {re.escape(message)}") as caught:
            TlsFiles(certificate=issued.certificate, key=wrong).check()
        assert "\n" not in str(caught.value)


def test_files_are_checked_before_anything_starts(
    sums_repository: Path, issued: Certificate, client: Certificate
) -> None:
    steps: list[str] = []
    options = ServerOptions(tls=TlsFiles(certificate=issued.certificate, key=client.key))
    with pytest.raises(TlsFilesError, match="is not that of the certificate"):
        start_triton(sums_repository, options, progress=steps.append)
    assert steps == []


def test_files_that_triton_rejects(sums_repository: Path, authority: CertificateAuthority, client: Certificate) -> None:
    late = authority.issue("replaced")

    def replace(_line: str) -> None:
        shutil.copyfile(client.key, late.key)

    with pytest.raises(TlsFilesError, match=r"^Triton cannot use the TLS files: Invalid private key; create"):
        start_triton(sums_repository, ServerOptions(tls=files_of(late)), progress=replace)


def credentials(authority: CertificateAuthority, client: Certificate | None = None) -> grpc.ChannelCredentials:
    """Return credentials that trust an authority, with a client's certificate for mutual TLS."""
    return grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(),
        client.key.read_bytes() if client else None,
        client.certificate.read_bytes() if client else None,
    )


def infer(url: str, channel_credentials: grpc.ChannelCredentials | None) -> float:
    """Return the sum of 1, 2 and 3 that the server computes; raise grpc.RpcError if it does not accept the client."""
    channel = (
        grpc.insecure_channel(url) if channel_credentials is None else grpc.secure_channel(url, channel_credentials)
    )
    with channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=TIMEOUT_S).ready
        request = service_pb2.ModelInferRequest(
            model_name="sums", raw_input_contents=[np.array([1, 2, 3], np.int64).tobytes()]
        )
        request.inputs.add(name="input_ids", datatype="INT64", shape=[1, 3])
        reply = stub.ModelInfer(request, timeout=TIMEOUT_S)
    return float(np.frombuffer(reply.raw_output_contents[0], np.float32)[0])


def assert_refused(url: str, channel_credentials: grpc.ChannelCredentials | None) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(url, channel_credentials)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tls_on_a_real_server(
    sums_repository: Path, issued: Certificate, authority: CertificateAuthority, stranger: CertificateAuthority
) -> None:
    options = ServerOptions(host="0.0.0.0", tls=files_of(issued))
    with start_triton(sums_repository, options) as server:
        assert infer(server.grpc_url, credentials(authority)) == 6
        assert infer(f"localhost:{server.addresses.grpc_port}", credentials(authority)) == 6
        assert_refused(server.grpc_url, None)
        assert_refused(server.grpc_url, credentials(stranger))
        assert_listens(server)


def assert_listens(server: TritonServer) -> None:
    """Only gRPC is on every interface, and HTTP and metrics answer without TLS on loopback."""
    addresses = server.addresses
    assert listening_addresses(addresses.grpc_port) == {"00000000"}
    for port in (addresses.http_port, addresses.metrics_port):
        assert listening_addresses(port) == {"0100007F"}
    for url in (f"{server.http_url}/v2/health/ready", server.metrics_url):
        with urllib.request.urlopen(url) as response:
            assert response.status == 200


def test_mutual_tls_with_the_command(
    sums_repository: Path,
    issued: Certificate,
    client: Certificate,
    authority: CertificateAuthority,
    stranger: CertificateAuthority,
) -> None:
    given = {"certificate": issued.certificate, "key": issued.key, "client-ca": authority.certificate}
    options = [f"--tls-{name}={os.path.relpath(file)}" for name, file in given.items()]
    port, *others = free_ports(3)
    command = [*serve_command(sums_repository, port, *others), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready: sums\n"
            assert process.stdout.readline() == f"  gRPC     127.0.0.1:{port} (mutual TLS)\n"
            url = f"127.0.0.1:{port}"
            assert infer(url, credentials(authority, client)) == 6
            assert_refused(url, None)
            assert_refused(url, credentials(authority))
            assert_refused(url, credentials(authority, stranger.issue("client")))
        finally:
            process.terminate()
