"""The connection that an adapter creates or is given."""

from __future__ import annotations

import copy
import pickle

import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import ClientError, EmbeddingClient, InvalidInputError
from qwen3_triton.client.integrations.held_client import ClientHolder, HeldClient, hold_client


class Adapter(ClientHolder):
    def __init__(self, held: HeldClient[EmbeddingClient]) -> None:
        self._held = held

    def count(self) -> int:
        return len(self._held.client.embed_documents(["a"]))


def test_created_client_is_closed(triton: FakeTriton) -> None:
    with Adapter(hold_client(EmbeddingClient, None, triton.url, MODEL)) as adapter:
        assert adapter.count() == 1
    adapter.close()
    with pytest.raises(ClientError, match="closed"):
        adapter.count()


def test_existing_client_stays_open(client: EmbeddingClient) -> None:
    with Adapter(hold_client(EmbeddingClient, client, None, None)) as adapter:
        assert adapter.count() == 1
    assert adapter.count() == 1


@pytest.mark.parametrize(("url", "model"), [(None, None), ("127.0.0.1:1", None), (None, MODEL)])
def test_missing_arguments_are_rejected(url: str | None, model: str | None) -> None:
    with pytest.raises(InvalidInputError, match="neither a client nor a URL and a model"):
        hold_client(EmbeddingClient, None, url, model)


@pytest.mark.parametrize(("url", "model"), [("127.0.0.1:1", MODEL), ("127.0.0.1:1", None), (None, MODEL)])
def test_contradicting_arguments_are_rejected(client: EmbeddingClient, url: str | None, model: str | None) -> None:
    with pytest.raises(InvalidInputError, match="pass one or the other"):
        hold_client(EmbeddingClient, client, url, model)


@pytest.mark.parametrize("servers", [1, 2])
def test_copies_have_connections_of_their_own(triton: FakeTriton, servers: int) -> None:
    url = triton.url if servers == 1 else [triton.url, triton.url.replace("127.0.0.1", "localhost")]
    adapter = Adapter(hold_client(EmbeddingClient, None, url, MODEL))
    with pickle.loads(pickle.dumps(adapter)) as first, copy.deepcopy(adapter) as second:
        adapter.close()
        assert first.count() == second.count() == 1


def test_adapter_of_an_existing_client_cannot_be_copied(client: EmbeddingClient) -> None:
    adapter = Adapter(hold_client(EmbeddingClient, client, None, None))
    for make_copy in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="create it from a URL and a model"):
            make_copy(adapter)
