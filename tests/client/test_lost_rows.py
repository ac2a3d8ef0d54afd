"""Rows that the server lost are sent again; rejected rows are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton
from numpy.typing import NDArray
from sample_manifest import DIMENSION, make_rerank_manifest

from qwen3_triton.client import EmbeddingClient, InvalidInputError, RerankClient, ServerError
from qwen3_triton.client.manifest import LOST_ROW_BITS
from qwen3_triton.client.model_outputs import MAX_RESENDS

pytestmark = pytest.mark.usefixtures("both_clients")

LOST = np.asarray(LOST_ROW_BITS, np.uint32).view(np.float32)
TEXTS = [f"text {number} " + "word " * (number % 7) for number in range(30)]


class LoseRows:
    """Makes the server lose random rows of its first `replies` replies."""

    def __init__(self, replies: int, share: float = 0.5) -> None:
        self._replies = replies
        self._share = share
        self._rng = np.random.default_rng(3)

    def __call__(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        self._replies -= 1
        if self._replies >= 0:
            output[self._rng.random(len(output)) < self._share] = LOST
        return output


@pytest.mark.parametrize(("texts", "replies"), [(TEXTS[:3], 1), (TEXTS, 3)], ids=["one request", "many requests"])
def test_lost_vectors_are_requested_again(
    triton: FakeTriton, client: EmbeddingClient, texts: list[str], replies: int
) -> None:
    expected = client.embed_documents(texts)
    sent = sum(len(batch) for batch in triton.batches)
    triton.batches.clear()
    triton.change_output = LoseRows(replies=replies)
    np.testing.assert_array_equal(client.embed_documents(texts), expected)
    again = sum(len(batch) for batch in triton.batches) - sent
    assert 0 < again < sent


def test_lost_scores_are_requested_again(tokenizer_file: Path) -> None:
    manifest = make_rerank_manifest(tokenizer_file)
    with FakeTriton(manifest.to_json(), None) as triton, RerankClient(triton.url, MODEL) as client:
        expected = client.rerank("query", TEXTS)
        triton.change_output = LoseRows(replies=3)
        assert client.rerank("query", TEXTS) == expected


def test_rows_that_stay_lost_raise_a_server_error(triton: FakeTriton, client: EmbeddingClient) -> None:
    triton.change_output = LoseRows(replies=10_000, share=1.0)
    with pytest.raises(ServerError, match=rf"lost 2 rows {1 + MAX_RESENDS} times") as raised:
        client.embed_documents(["a", "b"])
    assert type(raised.value) is ServerError
    assert len(triton.batches) == 1 + MAX_RESENDS


def test_a_rejected_row_raises_invalid_input_even_among_lost_rows(triton: FakeTriton, client: EmbeddingClient) -> None:
    triton.change_output = LoseRows(replies=1, share=1.0)
    with pytest.raises(InvalidInputError, match=r"texts\[1\] \('#'\) has no embedding"):
        client.embed_documents(["a", "#", "c"])
    assert [len(batch) for batch in triton.batches] == [3, 3]


def test_ordinary_nan_is_not_sent_again(triton: FakeTriton, client: EmbeddingClient) -> None:
    with pytest.raises(InvalidInputError):
        client.embed_documents(["#"])
    assert len(triton.batches) == 1
    assert client.embed_documents(["a"]).shape == (1, DIMENSION)
