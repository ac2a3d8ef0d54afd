"""Every example of docs/client.md runs, apart from "Smaller vectors", which has a test of its own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import grpc
import numpy
import pytest
from certificates import CertificateAuthority
from fake_triton import FakeTriton
from sample_manifest import DIMENSION

from qwen3_triton.client import EmbeddingClient, EmbeddingManifest, ServerError

BLOCKS = 10


def examples(root: Path) -> list[str]:
    page = (root / "docs" / "client.md").read_text(encoding="utf-8")
    others = re.sub(r"\n## Smaller vectors\n.*?\n## ", "\n## ", page, flags=re.DOTALL)
    return re.findall(r"```python\n(.*?)```", others, re.DOTALL)


@pytest.fixture
def encrypted(manifest: EmbeddingManifest, authority: CertificateAuthority, tmp_path: Path) -> Iterator[FakeTriton]:
    """A server with mutual TLS, and the files of its client in the working directory."""
    server, own = authority.issue("documented-server"), authority.issue("documented-client", hosts=["client.test"])
    shutil.copy(authority.certificate, tmp_path / "ca.crt")
    shutil.copy(own.certificate, tmp_path / "client.crt")
    shutil.copy(own.key, tmp_path / "client.key")
    credentials = grpc.ssl_server_credentials(
        [(server.key.read_bytes(), server.certificate.read_bytes())],
        root_certificates=authority.certificate.read_bytes(),
        require_client_auth=True,
    )
    with FakeTriton(manifest.to_json(), DIMENSION, credentials=credentials) as triton:
        yield triton


@pytest.mark.parametrize("index", range(BLOCKS))
def test_example(
    index: int,
    project_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    manifest: EmbeddingManifest,
    triton: FakeTriton,
    reranking_triton: FakeTriton,
    encrypted: FakeTriton,
    client: EmbeddingClient,
) -> None:
    blocks = examples(project_root)
    assert len(blocks) == BLOCKS
    code = blocks[index]
    url = reranking_triton.url if "Rerank" in code else triton.url
    with FakeTriton(manifest.to_json(), DIMENSION) as second:
        for written, used in (
            ("localhost:8001", url),
            ("triton-0:8001", triton.url),
            ("triton-1:8001", second.url),
            ("triton.example.com:8001", encrypted.url),
            ("mymodel", "demo"),
            ("myreranker", "demo"),
            ("dim=256", "dim=8"),
        ):
            code = code.replace(written, used)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TRITON_TOKEN", "token")
        (tmp_path / "corpus.txt").write_text("a text\nanother text\n")
        names: dict[str, Any] = {
            "EmbeddingClient": EmbeddingClient,
            "ServerError": ServerError,
            "client": client,
            "current_tenant": ContextVar("tenant", default="a"),
            "numpy": numpy,
            "os": os,
            "texts": ["sorted(xs) returns a new list", "os.remove(path) deletes a file"],
        }
        exec(code, names)
        if "main" in names:
            asyncio.run(names["main"]())
        if names["client"] is not client:
            names["client"].close()
