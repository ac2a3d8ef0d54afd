"""Mutual TLS between the clients and a real Triton."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from certificates import CertificateAuthority
from numpy.typing import NDArray
from served_demo import ServedDemo

from qwen3_triton.client import AsyncEmbeddingClient, EmbeddingClient, ServerUnavailableError, TlsOptions
from qwen3_triton.server import ServerOptions, TlsFiles, start_triton

MODEL = "embedder"
TEXTS = ["sort a list", "read a file"]


def test_both_clients(served_demo: ServedDemo, authority: CertificateAuthority) -> None:
    with EmbeddingClient(served_demo.server.grpc_url, MODEL) as plain:
        expected = plain.embed_documents(TEXTS)
    server, own = authority.issue("real-server"), authority.issue("real-client", hosts=["client.test"])
    tls = TlsOptions(ca=authority.certificate, certificate=own.certificate, key=own.key)
    files = TlsFiles(certificate=server.certificate, key=server.key, client_ca=authority.certificate)
    with start_triton(served_demo.repository, ServerOptions(tls=files)) as triton:
        with EmbeddingClient(triton.grpc_url, MODEL, tls=tls) as client:
            np.testing.assert_array_equal(client.embed_documents(TEXTS), expected)
        np.testing.assert_array_equal(asyncio.run(embed(triton.grpc_url, tls)), expected)
        for refused in (None, TlsOptions(ca=authority.certificate)):
            with pytest.raises(ServerUnavailableError, match="whether it requires TLS"):
                EmbeddingClient(triton.grpc_url, MODEL, tls=refused, timeout_s=10)


async def embed(url: str, tls: TlsOptions) -> NDArray[np.float32]:
    async with AsyncEmbeddingClient(url, MODEL, tls=tls) as client:
        return await client.embed_documents(TEXTS)
