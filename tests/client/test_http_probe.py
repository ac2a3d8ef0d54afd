"""An HTTP port given for gRPC is named as such."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient, ServerUnavailableError
from qwen3_triton.client.http_probe import speaks_http


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def http_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_http_port_is_named(http_url: str) -> None:
    with pytest.raises(
        ServerUnavailableError, match=f"{http_url}: this is an HTTP port: give the port of Triton's gRPC"
    ):
        EmbeddingClient(http_url, MODEL, timeout_s=5)


def test_grpc_port_does_not_speak_http(triton: FakeTriton) -> None:
    assert not speaks_http(triton.url)


@pytest.mark.parametrize("url", ["localhost", "127.0.0.1:x", "", "127.0.0.1:99999"])
def test_what_is_no_address_does_not_speak_http(url: str) -> None:
    assert not speaks_http(url)


def test_closed_port_does_not_speak_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert not speaks_http(f"127.0.0.1:{port}")
