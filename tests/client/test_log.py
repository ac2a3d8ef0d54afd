"""What clients log, and what the command line shows of it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient

REASON = "Server is stopping,\nscheduler for model has stopped accepting new requests"


def fail_first(count: int) -> Any:
    def fault(number: int, context: grpc.ServicerContext) -> None:
        if number < count:
            context.abort(grpc.StatusCode.UNAVAILABLE, REASON)

    return fault


def is_outage_of(triton: FakeTriton, message: str) -> bool:
    """Whether a message has the server and, in one line, its reason."""
    start, end = f"server failed: {triton.url}: no Triton server reachable", f"({' '.join(REASON.split())})"
    return message.startswith(start) and message.endswith(end)


@pytest.mark.usefixtures("both_clients")
def test_an_outage_its_retries_and_its_end(triton: FakeTriton, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "qwen3_triton")
    triton.fault = fail_first(2)
    with EmbeddingClient(triton.url, MODEL, token="secret", metadata={"tenant": "hidden"}) as client:
        client.embed_documents(["a text"])
    outage, *others = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert outage[0] == "WARNING" and is_outage_of(triton, outage[1])
    retry = ("DEBUG", f"{triton.url}: sending a request again (rows: 1, reason: ServerUnavailableError)")
    assert others == [
        retry,
        retry,
        ("INFO", f"{triton.url}: the server replies again"),
    ]


@pytest.mark.usefixtures("both_clients")
def test_requests_in_halves_are_logged(triton: FakeTriton, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "qwen3_triton")

    def fault(number: int, context: grpc.ServicerContext) -> None:
        if not number:
            context.abort(grpc.StatusCode.INTERNAL, "out of memory")

    triton.fault = fault
    with EmbeddingClient(triton.url, MODEL) as client:
        client.embed_documents(["a", "b"])
    assert [record.getMessage() for record in caplog.records] == [
        f"{triton.url}: sending a request again (rows: 2, reason: out of memory)"
    ]


def test_the_library_writes_nothing_by_itself(triton: FakeTriton) -> None:
    triton.fault = fail_first(1)
    code = f"""
from qwen3_triton.client import EmbeddingClient
with EmbeddingClient({triton.url!r}, {MODEL!r}) as client:
    client.embed_documents(["a"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_command_line_shows_warnings(triton: FakeTriton, tmp_path: Path) -> None:
    pytest.importorskip("typer")
    triton.fault = fail_first(2)
    (tmp_path / "texts.txt").write_text("a\nb\n")
    code = "from qwen3_triton.cli.entry import run; run()"
    arguments = ["--model", MODEL, "--url", triton.url, "--input", str(tmp_path / "texts.txt")]
    done = subprocess.run([sys.executable, "-c", code, "embed", *arguments], capture_output=True, text=True, check=True)
    shown = [line for line in done.stderr.splitlines() if "server" in line.lower()]
    assert len(shown) == 1 and is_outage_of(triton, shown[0].removeprefix("warning: "))
    assert len(done.stdout.splitlines()) == 2
