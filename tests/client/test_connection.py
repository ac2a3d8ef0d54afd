"""Addresses, metadata and processes of a client's connection."""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from fake_triton import MODEL, FakeTriton
from sample_manifest import DIMENSION
from sample_texts import distinct_texts

from qwen3_triton.client import EmbeddingClient, EmbeddingManifest, InvalidInputError, ServerError
from qwen3_triton.client.connection import ConnectionOptions, TlsOptions

SECRET = "s3cret-t0ken"


def test_token_and_metadata_are_sent_with_every_request(
    triton: FakeTriton,
    both_clients: None,  # noqa: ARG001
) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    options: dict[str, Any] = {"token": SECRET, "metadata": lambda: {"x-tenant": tenant.get()}}
    with EmbeddingClient(triton.url, MODEL, **options) as client:
        client.embed_documents(["a"])
        tenant.set("somebody")
        client.embed_documents([f"{number}" for number in range(20)])
    assert {sent["authorization"] for sent in triton.metadata} == {f"Bearer {SECRET}"}
    assert triton.metadata[0]["x-tenant"] == "nobody"
    assert triton.metadata[-1]["x-tenant"] == "somebody"


def test_secrets_are_in_no_text(triton: FakeTriton) -> None:
    options = ConnectionOptions.create(triton.url, None, SECRET, {"x-key": SECRET})
    assert SECRET not in repr(options)
    with pytest.raises(InvalidInputError) as caught:
        EmbeddingClient(triton.url, MODEL, metadata={"x-key": f"{SECRET}\n"})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "the value of metadata key 'x-key' is not a string of printable ASCII" in str(caught.value)


@pytest.mark.parametrize("key", ["X-Key", "grpc-timeout", "key-bin", "", "with space"])
def test_invalid_metadata_keys(triton: FakeTriton, key: str) -> None:
    with pytest.raises(InvalidInputError, match="metadata key"):
        EmbeddingClient(triton.url, MODEL, metadata={key: "value"})


@pytest.mark.parametrize(
    ("url", "message"),
    [([], "empty list"), (["localhost:1", "localhost:1"], "the same server twice"), ([""], "HOST:PORT")],
)
def test_invalid_lists_of_servers(url: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        EmbeddingClient(url, MODEL)


def test_tls_files_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="certificate and key belong together"):
        TlsOptions(certificate="client.crt")
    missing = tmp_path / "ca.crt"
    with pytest.raises(InvalidInputError, match=f"tls: cannot read ca {missing}"):
        EmbeddingClient("localhost:1", MODEL, tls=TlsOptions(ca=missing))
    missing.write_text("text")
    with pytest.raises(InvalidInputError, match=r"is not a PEM file"):
        EmbeddingClient("localhost:1", MODEL, tls=TlsOptions(ca=missing))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_needs_a_client_of_its_own(triton: FakeTriton, tmp_path: Path) -> None:
    """The child's own call to the parent's client is refused; the parent's client still works."""
    report = tmp_path / "report"
    with EmbeddingClient(triton.url, MODEL) as client:
        before = client.embed_documents(["a"])
        child = os.fork()
        if not child:
            try:
                client.embed_documents(["a"])
                report.write_text("no error")
            except ServerError as error:
                report.write_text(str(error))
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(child, 0)
        assert "create a client in each process, after the fork" in report.read_text()
        assert (client.embed_documents(["a"]) == before).all()


def test_a_name_with_several_addresses_uses_all_of_them(
    manifest: EmbeddingManifest,
    both_clients: None,  # noqa: ARG001
) -> None:
    """As with a headless service; the addresses are given here as gRPC's name resolution would return them."""
    with FakeTriton(manifest.to_json(), DIMENSION) as first, FakeTriton(manifest.to_json(), DIMENSION) as second:
        with EmbeddingClient(f"ipv4:{first.url},{second.url}", MODEL) as client:
            client.embed_documents(["a"])
            deadline_s = time.monotonic() + 30
            # the second connection may be ready later than the first
            while not (first.batches and second.batches) and time.monotonic() < deadline_s:
                client.embed_documents(["a"])
            first.batches.clear()
            second.batches.clear()
            for text in distinct_texts(10):
                client.embed_documents([text])
        assert [len(first.batches), len(second.batches)] == [5, 5]
