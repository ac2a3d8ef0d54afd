"""Equal texts of a call are computed once."""

from __future__ import annotations

import random
from typing import Any

import grpc
import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient, InvalidInputError, RerankClient, RerankManifest, ServerError
from qwen3_triton.client.duplicates import Duplicates

pytestmark = pytest.mark.usefixtures("both_clients")


@pytest.mark.parametrize(
    ("inputs", "computed"),
    [([], []), (["a"], [0]), (["a", "b"], [0, 1]), (["b", "a", "b", "b", "c", "a"], [0, 1, 4])],
)
def test_the_first_of_equal_inputs_is_computed(inputs: list[str], computed: list[int]) -> None:
    duplicates = Duplicates.find(inputs)
    assert duplicates.computed.tolist() == computed
    assert list(duplicates.select(inputs)) == [inputs[position] for position in computed]
    results = np.full(len(inputs), -1)
    results[duplicates.computed] = computed
    duplicates.fill(results)
    assert [inputs[result] for result in results] == inputs


def test_vectors(triton: FakeTriton, client: EmbeddingClient) -> None:
    rng = random.Random(5)
    texts = [f"text {rng.randrange(30)}" for _ in range(200)]
    vectors = client.embed_documents(texts)
    assert sum(map(len, triton.batches)) == len(set(texts))
    by_text = dict(zip(texts, vectors, strict=True))
    np.testing.assert_array_equal(vectors, np.stack([by_text[text] for text in texts]))
    for text in list(by_text)[:5]:
        np.testing.assert_array_equal(client.embed_documents([text])[0], by_text[text])
    arrays = list(client.iter_documents(texts, window_texts=64))
    np.testing.assert_array_equal(np.concatenate(arrays), vectors)


def test_scores(rerank_manifest: RerankManifest) -> None:
    with FakeTriton(rerank_manifest.to_json(), None) as triton, RerankClient(triton.url, MODEL) as client:
        ranked = client.rerank("q", ["a", "b", "a", "a"])
        assert sum(map(len, triton.batches)) == 2
        assert len({score for position, score in ranked if position != 1}) == 1
        triton.batches.clear()
        scores = client.score([("q", "a"), ("p", "a"), ("q", "a")])
        assert sum(map(len, triton.batches)) == 2
        assert scores[0] == scores[2]


def test_nan_of_a_repeated_text(client: EmbeddingClient) -> None:
    with pytest.raises(InvalidInputError, match=r"texts\[1\] \('#'\) \(and 2 more\) has no embedding"):
        client.embed_documents(["a", "#", "b", "#", "#", "a"])
    vectors = client.embed_documents(["a", "#", "b", "#", "#", "a"], errors="nan")
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True, False, True, True, False]
    np.testing.assert_array_equal(vectors[0], vectors[5])


def test_partial_results_have_the_copies(triton: FakeTriton) -> None:
    def fault(number: int, context: Any) -> None:
        if number == 2:
            context.abort(grpc.StatusCode.INTERNAL, "broken")

    triton.fault = fault
    with (
        EmbeddingClient(triton.url, MODEL, max_rows_per_request=1, max_in_flight=1) as client,
        pytest.raises(ServerError, match="broken") as caught,
    ):
        client.embed_documents(["a", "b", "a", "c", "d", "b"])
    partial = caught.value.partial
    assert partial is not None
    assert partial.done.tolist() == [True, True, True, False, False, True]
    np.testing.assert_array_equal(partial.results[0], partial.results[2])
