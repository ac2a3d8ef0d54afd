"""Errors of `qwen3-triton serve`: exit status 1, one line on stderr, in terms of its options."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from test_triton_lifecycle import free_ports

from qwen3_triton.cli import main


def run_serve(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the last line on stderr, the error, of a command that fails."""
    monkeypatch.setattr(sys, "argv", ["qwen3-triton", "serve", *arguments])
    with pytest.raises(SystemExit) as exited:
        main.run()
    assert exited.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    *progress, line = captured.err.splitlines()
    assert not any(entry.startswith("error") for entry in progress)
    return line


def test_missing_repository(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = run_serve(monkeypatch, capsys, str(tmp_path / "missing"))
    assert line == (
        f"error: the model repository {tmp_path / 'missing'} does not exist: "
        "export a model into it, or use another directory"
    )


def test_port_in_use_names_the_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sums_repository: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        line = run_serve(monkeypatch, capsys, str(sums_repository), "--http-port", str(port))
    assert line.startswith(f"error: port {port} on 127.0.0.1 is in use by another process")
    assert line.endswith("(option --http-port)")


def test_model_without_hashes_fails_the_verification(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sums_repository: Path
) -> None:
    ports = [
        f"--{service}-port={port}" for service, port in zip(("grpc", "http", "metrics"), free_ports(3), strict=True)
    ]
    line = run_serve(monkeypatch, capsys, str(sums_repository), "--verify-files", *ports)
    assert line.startswith(
        f"error: 1 of 1 models differ from their manifests: {sums_repository / 'sums'}: manifest.json"
    )
    assert line.endswith("(option --verify-files)")


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (["certificate"], "--tls-key"),
        (["key"], "--tls-certificate"),
        (["certificate", "client-ca"], "--tls-key"),
        (["client-ca"], "--tls-certificate and --tls-key"),
    ],
)
def test_tls_needs_certificate_and_key(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    given: list[str],
    missing: str,
) -> None:
    options = [f"--tls-{name}={tmp_path / name}" for name in given]
    line = run_serve(monkeypatch, capsys, str(tmp_path), *options)
    assert line == f"error: TLS needs a certificate and its key: add {missing}"


def test_tls_certificate_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sums_repository: Path
) -> None:
    line = run_serve(monkeypatch, capsys, str(sums_repository), "--tls-certificate=no.crt", "--tls-key=no.key")
    assert line == (
        "error: cannot read the TLS certificate no.crt: No such file or directory; give a readable file in PEM format"
    )
