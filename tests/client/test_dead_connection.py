"""A load balancer that forgets a connection without closing it: one call times out, and the next one reconnects."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient, ServerError, ServerTimeoutError, ServerUnavailableError


class Balancer:
    """Forwards TCP connections to `target`; bytes of forgotten ones are dropped in both directions."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._forgotten: list[threading.Event] = []
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        return len(self._forgotten)

    def forget(self) -> None:
        """Forget every connection made so far."""
        for event in self._forgotten:
            event.set()

    def close(self) -> None:
        for opened in (self._listener, *self._sockets):
            opened.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            forgotten = threading.Event()
            self._sockets += [near, far]
            self._forgotten.append(forgotten)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(source, sink, forgotten), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, forgotten: threading.Event) -> None:
        try:
            while data := source.recv(1 << 16):
                if not forgotten.is_set():
                    sink.sendall(data)
        except OSError:
            return


@pytest.fixture
def balancer(triton: FakeTriton) -> Iterator[Balancer]:
    balancer = Balancer(triton.url)
    yield balancer
    balancer.close()


def test_call_after_a_timeout_reconnects(balancer: Balancer, tokenizer_file: Path) -> None:
    with EmbeddingClient(balancer.url, MODEL, tokenizer=tokenizer_file, timeout_s=1) as client:
        before = client.embed_documents(["a text"])
        assert balancer.connections == 1
        balancer.forget()
        with pytest.raises(ServerTimeoutError):
            client.embed_documents(["a text"])
        assert (client.embed_documents(["a text"]) == before).all()
        assert balancer.connections == 2


def test_calls_of_other_threads_survive_the_reconnection(
    triton: FakeTriton, balancer: Balancer, tokenizer_file: Path
) -> None:
    """A slow reply on the old connection still arrives after another call timed out there."""
    release = threading.Event()
    triton.fault = lambda number, _context: number == 0 and release.wait(10)
    answers: list[int] = []
    with EmbeddingClient(balancer.url, MODEL, tokenizer=tokenizer_file, timeout_s=5) as client:
        slow = threading.Thread(target=lambda: answers.append(len(client.embed_documents(["slow"]))))
        slow.start()
        while not triton.batches and slow.is_alive() and triton.most_in_flight == 0:
            time.sleep(0.01)
        channel = client._channel
        with pytest.raises(ServerTimeoutError), channel._use(balancer.url):
            raise ServerTimeoutError("of another call")
        assert len(client.embed_documents(["quick"])) == 1
        assert balancer.connections == 2
        release.set()
        slow.join(10)
        assert answers == [1]


def test_closed_client_does_not_reconnect(balancer: Balancer, tokenizer_file: Path) -> None:
    client = EmbeddingClient(balancer.url, MODEL, tokenizer=tokenizer_file, timeout_s=1)
    client.close()
    with pytest.raises(ServerError, match="is closed"):
        client.embed_documents(["a text"])
    client.close()


@pytest.mark.parametrize("details", ["keepalive watchdog timeout", "Stream removed (ping timeout)"])
def test_lost_connection_is_named(triton: FakeTriton, tokenizer_file: Path, details: str) -> None:
    """gRPC reports a connection whose pings stay without a reply in these words."""
    triton.fault = lambda _number, context: context.abort(grpc.StatusCode.UNAVAILABLE, details)
    with (
        EmbeddingClient(triton.url, MODEL, tokenizer=tokenizer_file, retry_timeout_s=0) as client,
        pytest.raises(ServerUnavailableError, match="the connection was lost without notice"),
    ):
        client.embed_documents(["a text"])
