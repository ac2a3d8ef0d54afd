from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton, row_score
from numpy.typing import NDArray
from sample_manifest import make_rerank_manifest
from tokenizers import Tokenizer

from qwen3_triton.client import (
    InvalidInputError,
    ManifestError,
    PairPrompts,
    RankedDocument,
    RerankClient,
    RerankManifest,
)

pytestmark = pytest.mark.usefixtures("both_clients")

PREFIX, SUFFIX = "<|im_end|>judge\n", "<|im_end|>answer\n"


def pair_ids(file: Path, body: str) -> list[int]:
    """Return the ids of prefix, body and suffix, each tokenized separately, computed independently."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [id_ for text in (PREFIX, body, SUFFIX) for id_ in tokenizer.encode(text, add_special_tokens=False).ids]


def expected(file: Path, query: str, documents: Sequence[str], instruction: str = "find it") -> NDArray[np.float32]:
    bodies = [f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}" for document in documents]
    return np.array([row_score(pair_ids(file, body)) for body in bodies], np.float32)


def sample_texts(count: int) -> list[str]:
    rng = random.Random(count)
    return ["".join(rng.choices("abc é漢\n{}", k=rng.randrange(40))) for _ in range(count)]


def ranked(scores: NDArray[np.float32]) -> list[tuple[int, float]]:
    return sorted(((index, float(score)) for index, score in enumerate(scores)), key=lambda pair: (-pair[1], pair[0]))


@pytest.mark.parametrize("count", [1, 2, 8, 9, 300])
def test_sorted_by_score_and_ties_by_position(rerank_client: RerankClient, tokenizer_file: Path, count: int) -> None:
    texts = sample_texts(count)
    result = rerank_client.rerank("which {document}?", texts)
    assert result == ranked(expected(tokenizer_file, "which {document}?", texts))
    if count == 300:
        assert len({score for _, score in result}) < count, "no ties in the sample"


def test_result_is_a_named_tuple(rerank_client: RerankClient) -> None:
    [best] = rerank_client.rerank("a", ["b"])
    assert isinstance(best, RankedDocument)
    assert (best.position, best.score) == best
    assert type(best.position) is int
    assert type(best.score) is float


def test_instruction(rerank_client: RerankClient, tokenizer_file: Path) -> None:
    texts = sample_texts(20)
    result = rerank_client.rerank("q", texts, instruction="judge {query}")
    assert result == ranked(expected(tokenizer_file, "q", texts, "judge {query}"))
    assert result != rerank_client.rerank("q", texts)


@pytest.mark.parametrize("top_k", [1, 3, 20, 21, 10_000])
def test_top_k_is_the_head_of_the_full_ranking(rerank_client: RerankClient, top_k: int) -> None:
    texts = sample_texts(20)
    assert rerank_client.rerank("q", texts, top_k=top_k) == rerank_client.rerank("q", texts)[:top_k]


@pytest.mark.parametrize("top_k", [0, -1, 2.0, "3"])
def test_invalid_top_k(reranking_triton: FakeTriton, rerank_client: RerankClient, top_k: Any) -> None:
    with pytest.raises(InvalidInputError, match="top_k is"):
        rerank_client.rerank("q", ["a"], top_k=top_k)
    assert reranking_triton.batches == []


def test_scores_in_the_order_of_the_pairs(rerank_client: RerankClient, tokenizer_file: Path) -> None:
    pairs = list(zip(sample_texts(100), reversed(sample_texts(100)), strict=True))
    scores = rerank_client.score(iter(pairs))
    assert (scores.dtype, scores.shape) == (np.dtype(np.float32), (100,))
    truth = np.concatenate([expected(tokenizer_file, query, [document]) for query, document in pairs])
    np.testing.assert_array_equal(scores, truth)


def test_long_lists_are_split_into_requests(reranking_triton: FakeTriton, rerank_client: RerankClient) -> None:
    rerank_client.rerank("q", [f"{number} {text}" for number, text in enumerate(sample_texts(100))])
    assert max(len(batch) for batch in reranking_triton.batches) == reranking_triton.max_batch_size
    assert sum(len(batch) for batch in reranking_triton.batches) == 100


def test_no_documents(reranking_triton: FakeTriton, rerank_client: RerankClient) -> None:
    assert rerank_client.rerank("q", []) == []
    assert rerank_client.rerank("q", iter([]), top_k=3) == []
    assert rerank_client.score([]).shape == (0,)
    assert reranking_triton.batches == []


def test_empty_query_and_empty_document(rerank_client: RerankClient, tokenizer_file: Path) -> None:
    assert rerank_client.rerank("", ["", "a"]) == ranked(expected(tokenizer_file, "", ["", "a"]))


@pytest.mark.parametrize("length", [60, 150, 5000])
def test_only_the_body_is_truncated(
    reranking_triton: FakeTriton, rerank_client: RerankClient, tokenizer_file: Path, length: int
) -> None:
    rerank_client.rerank("q", ["a" * length])
    [[row]] = reranking_triton.batches
    uncut = pair_ids(tokenizer_file, f"<Instruct>: find it\n<Query>: q\n<Document>: {'a' * length}")
    prefix, suffix = pair_ids(tokenizer_file, "")[:7], pair_ids(tokenizer_file, "")[7:]
    assert row.tolist()[:7] == prefix
    assert row.tolist()[-len(suffix) :] == suffix
    assert len(row) == min(200, len(uncut))
    assert row.tolist() == [*uncut[: len(row) - len(suffix)], *suffix]


def test_query_that_leaves_no_tokens_for_the_document(
    reranking_triton: FakeTriton, rerank_client: RerankClient
) -> None:
    with pytest.warns(UserWarning, match=r"no room for documents\[0\] \('one'\) \(and 1 more\).*shorten the query"):
        first, second = rerank_client.rerank("q" * 500, ["one", "two"])
    assert first.score == second.score
    assert all(batch.shape[1] == 200 for batch in reranking_triton.batches)
    with pytest.warns(UserWarning, match=r"no room for pairs\[1\] \('two'\): "):
        rerank_client.score([("q", "one"), ("q" * 500, "two")])


def test_query_that_leaves_one_token_for_the_document(rerank_client: RerankClient, tokenizer_file: Path) -> None:
    room = 200 - len(pair_ids(tokenizer_file, "<Instruct>: find it\n<Query>: \n<Document>: "))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(rerank_client.rerank("q" * (room - 1), ["long document"])) == 1
    with pytest.warns(UserWarning, match="no room"):
        rerank_client.rerank("q" * room, ["long document"])


def test_over_long_document_is_rejected_without_truncate(reranking_triton: FakeTriton, tokenizer_file: Path) -> None:
    with RerankClient(reranking_triton.url, MODEL, truncate=False) as client:
        max_document = 200 - len(pair_ids(tokenizer_file, "<Instruct>: find it\n<Query>: q\n<Document>: "))
        assert len(client.rerank("q", ["a" * max_document])) == 1
        with pytest.raises(
            InvalidInputError, match=r"documents\[1\] \('a{40}…'\) has 201 tokens with query and prompt"
        ):
            client.rerank("q", ["a", "a" * (max_document + 1)])
        with pytest.raises(InvalidInputError, match=r"pairs\[0\] \('a{40}…'\) has 201 tokens"):
            client.score([("q", "a" * (max_document + 1))])


def test_special_tokens_in_a_text_are_tokenized_as_the_tokenizer_does(
    reranking_triton: FakeTriton, rerank_client: RerankClient, tokenizer_file: Path
) -> None:
    document = "<|im_end|> <|endoftext|>"
    rerank_client.rerank("q", [document])
    [[row]] = reranking_triton.batches
    assert row.tolist() == pair_ids(tokenizer_file, f"<Instruct>: find it\n<Query>: q\n<Document>: {document}")


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        ("q", "one string", "documents is a single string, expected a list of strings"),
        ("q", ["a", 3], r"documents\[1\] is of type int"),
        ("q", ["a", "b\ud800"], r"documents\[1\] contains a lone surrogate U\+D800 at character 1"),
        (None, ["a"], "query is of type NoneType"),
        (["q"], ["a"], "query is of type list"),
        ("\udfff", ["a"], r"query contains a lone surrogate U\+DFFF at character 0"),
    ],
)
def test_invalid_texts(
    reranking_triton: FakeTriton, rerank_client: RerankClient, query: Any, documents: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        rerank_client.rerank(query, documents)
    assert reranking_triton.batches == []


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("a", "b"), "ab"], r"pairs\[1\] is not a"),
        ([("a", "b", "c")], r"pairs\[0\] is not a"),
        ([3], r"pairs\[0\] is not a"),
        ([("a", None)], r"pairs\[0\]\[1\] is of type NoneType"),
        ([("\ud800", "b")], r"pairs\[0\]\[0\] contains a lone surrogate"),
        ("ab", r"pairs\[0\] is not a"),
    ],
)
def test_invalid_pairs(reranking_triton: FakeTriton, rerank_client: RerankClient, pairs: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        rerank_client.score(pairs)
    assert reranking_triton.batches == []


def test_error_for_nan_names_the_document(rerank_client: RerankClient) -> None:
    with pytest.raises(InvalidInputError, match=r"documents\[30\] \('import #numpy'\) \(and 1 more\) has no score"):
        rerank_client.rerank("q", [*sample_texts(30), "import #numpy", "# too"])


def test_nan_for_some_documents_ranks_them_last(rerank_client: RerankClient) -> None:
    documents = ["# first", *sample_texts(5), "import #numpy"]
    ranked = rerank_client.rerank("q", documents, errors="nan")
    assert [document.position for document in ranked[-2:]] == [0, 6]
    assert all(np.isnan(document.score) for document in ranked[-2:])
    assert ranked[:-2] == [
        type(ranked[0])(document.position + 1, document.score) for document in rerank_client.rerank("q", documents[1:6])
    ]
    scores = rerank_client.score([("q", text) for text in documents], errors="nan")
    assert np.isnan(scores).tolist() == [True, *[False] * 5, True]


def test_reply_with_wrong_shape(reranking_triton: FakeTriton, rerank_client: RerankClient) -> None:
    reranking_triton.change_output = lambda scores: np.concatenate([scores, scores], axis=1)
    with pytest.raises(ManifestError, match=r"expected FP32 \[1, 1\]"):
        rerank_client.rerank("q", ["a"])


def test_shared_between_threads(rerank_client: RerankClient, tokenizer_file: Path) -> None:
    lists = [sample_texts(count) for count in range(20, 50)]
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda texts: rerank_client.rerank("q", texts), lists)
        for texts, result in zip(lists, results, strict=True):
            assert result == ranked(expected(tokenizer_file, "q", texts))


def test_manifest_is_read_from_the_server(rerank_client: RerankClient, rerank_manifest: RerankManifest) -> None:
    assert rerank_client.manifest == rerank_manifest


def test_prompt_longer_than_max_tokens(tokenizer_file: Path) -> None:
    manifest = make_rerank_manifest(tokenizer_file, max_tokens=15)
    with (
        FakeTriton(manifest.to_json(), None) as triton,
        pytest.raises(ManifestError, match="accepts 15 tokens, but its prompt alone has 15"),
    ):
        RerankClient(triton.url, MODEL)


def test_body_in_another_order_and_without_instruction(tokenizer_file: Path) -> None:
    prompts = PairPrompts(prefix="", body="{document} ? {query}", suffix="!", default_instruction=None)
    manifest = make_rerank_manifest(tokenizer_file, prompts=prompts)
    with FakeTriton(manifest.to_json(), None) as triton, RerankClient(triton.url, MODEL) as client:
        client.rerank("{document}", ["{query}"])
        [[row]] = triton.batches
        assert Tokenizer.from_file(str(tokenizer_file)).decode(row.tolist()) == "{query} ? {document}!"
        with pytest.raises(InvalidInputError, match="takes no instruction"):
            client.rerank("q", ["a"], instruction="rank")


@pytest.mark.parametrize("body", ["{query}", "{query} {document} {query}", "{document}{document}"])
def test_body_needs_each_placeholder_once(tokenizer_file: Path, body: str) -> None:
    prompts = PairPrompts(prefix="", body=body, suffix="", default_instruction=None)
    manifest = make_rerank_manifest(tokenizer_file, prompts=prompts)
    with (
        FakeTriton(manifest.to_json(), None) as triton,
        RerankClient(triton.url, MODEL) as client,
        pytest.raises(ManifestError, match="exactly once"),
    ):
        client.rerank("q", ["a"])
