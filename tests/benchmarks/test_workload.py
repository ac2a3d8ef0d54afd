"""Workloads have the same rows on every machine and in every version, so that runs stay comparable."""

from __future__ import annotations

import hashlib
import json

import pytest

from benchmarks.model_shape import SHAPES
from benchmarks.prompts import PAIR_PREFIX, PAIR_SEPARATOR, PAIR_SUFFIX, QUERY_PREFIX
from benchmarks.workload import END_TOKEN_ID, WORKLOADS
from qwen3_triton.client.manifest import Task

_SHA256 = {
    "mix": "ec2d09a03684a0ad118a9791be02142f2110a05e3dff90edf551fd37c62d8ac1",
    "tiny": "3b88d12711765d5c5963a312d76b5cb4fed8dced5facbcd83a63c2ff839dc93f",
}
_VOCABULARY = {"mix": SHAPES["0.6b-4-layers"].vocabulary, "tiny": SHAPES["tiny"].vocabulary}


@pytest.mark.parametrize("name", _SHA256)
def test_rows_have_not_changed(name: str) -> None:
    rows = WORKLOADS[name].rows(_VOCABULARY[name])
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == _SHA256[name]


def test_mix_has_the_documented_texts_and_tokens() -> None:
    lengths = [len(row) for row in WORKLOADS["mix"].rows(8192)]
    assert (len(lengths), sum(lengths), min(lengths), max(lengths)) == (24, 1729, 13, 173)


@pytest.mark.parametrize("tokens", [20, 200, 2048])
def test_single_texts_have_the_length_in_their_name(tokens: int) -> None:
    (row,) = WORKLOADS[f"text-{tokens}"].rows(8192)
    assert len(row) == tokens


@pytest.mark.parametrize("name", WORKLOADS)
def test_ids_are_in_the_vocabulary_and_only_rows_to_embed_end_with_the_end_token(name: str) -> None:
    embeds = WORKLOADS[name].task is Task.EMBED
    for row in WORKLOADS[name].rows(512):
        assert (row[-1] == END_TOKEN_ID) == embeds
        assert END_TOKEN_ID not in row[:-1]
        assert 0 <= min(row) <= max(row) < 512
        assert len(row) <= WORKLOADS[name].longest


def test_rows_of_one_query_share_prefix_and_suffix() -> None:
    prompt = WORKLOADS["rerank"].prompt
    rows = WORKLOADS["rerank"].rows(8192)
    assert len(rows) == 50
    assert len({tuple(row[: prompt.shared_tokens]) for row in rows}) == 1
    assert len({tuple(row[-len(prompt.suffix) :]) for row in rows}) == 1
    assert len({tuple(row) for row in rows}) == 50
    lengths = [len(row) - prompt.shared_tokens - len(prompt.suffix) for row in rows]
    assert (min(lengths), max(lengths)) == (30, 500)


def test_queries_and_rerankers_have_the_ids_of_the_prompts() -> None:
    vocabulary = SHAPES["0.6b"].vocabulary
    queries, pairs = (WORKLOADS[name].rows(vocabulary) for name in ("queries", "rerank"))
    assert {tuple(row[: len(QUERY_PREFIX)]) for row in queries} == {QUERY_PREFIX}
    assert len({row[len(QUERY_PREFIX)] for row in queries}) > 1
    assert (min(map(len, queries)), max(map(len, queries))) == (23, 40)
    shared = WORKLOADS["rerank"].prompt.shared_tokens
    for row in pairs:
        assert tuple(row[: len(PAIR_PREFIX)]) == PAIR_PREFIX
        assert tuple(row[shared - len(PAIR_SEPARATOR) : shared]) == PAIR_SEPARATOR
        assert tuple(row[-len(PAIR_SUFFIX) :]) == PAIR_SUFFIX


def test_matmul_shapes_include_every_weight_of_a_layer() -> None:
    weights = sum(inner * columns for inner, columns in SHAPES["0.6b"].matmul_shapes().values())
    assert weights == 1024 * (2048 + 2 * 1024) + 2048 * 1024 + 3 * 1024 * 3072
