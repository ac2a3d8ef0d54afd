"""Evaluation and checkpoint files of the demo."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from examples.demo.evaluation import (
    QUERIES,
    EvaluationSet,
    FloatArray,
    cut,
    evaluate,
    load_evaluation_set,
    ndcg_at_10,
    ndcg_of_scores,
)
from examples.demo.lexical import bm25_scores
from examples.demo.pairs import LeakageGuard, held_out_functions, hide_name, name_words, normalize_text
from examples.demo.source import Function, describe, installed_modules, standard_modules
from examples.demo.tasks import ADAPTER_TASK, BASE_TASK, DemoTask

DEMO = Path(__file__).parents[1] / "examples" / "demo"
CHECKPOINT = DEMO / "checkpoint"
ADAPTER = DEMO / "adapter"
TASKS = pytest.mark.parametrize("task", [BASE_TASK, ADAPTER_TASK])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


def _function(**changes: str) -> Function:
    values = {"module": "m", "name": "f", "description": "", "code": ""} | changes
    return Function(**values, comments=())


def _random_rows(texts: list[str]) -> FloatArray:
    rows = np.random.default_rng(len(texts)).standard_normal((len(texts), 64)).astype(np.float32)
    return cut(rows, None)


@pytest.mark.parametrize(
    ("scores", "relevant", "expected"),
    [
        ([3, 2, 1], {0}, 1.0),
        ([3, 2, 1], {1}, 1 / math.log2(3)),
        ([3, 2, 1], {2}, 0.5),
        ([3, 2, 1], {0, 2}, (1 + 0.5) / (1 + 1 / math.log2(3))),
        ([1, 1, 1], {1}, 1 / math.log2(3)),
        ([*range(20, 0, -1)], {9}, 1 / math.log2(11)),
        ([*range(20, 0, -1)], {10}, 0.0),
    ],
)
def test_ndcg_by_hand(scores: list[int], relevant: set[int], expected: float) -> None:
    got = ndcg_of_scores(np.array([scores], np.float32), [frozenset(relevant)])
    assert got == pytest.approx(expected)


def test_ndcg_of_vectors_is_the_mean_over_queries() -> None:
    documents = np.eye(3, dtype=np.float32)
    queries = np.array([[1, 0, 0], [0.8, 0.6, 0]], np.float32)
    got = ndcg_at_10(queries, documents, [frozenset({0}), frozenset({1})])
    assert got == pytest.approx((1 + 1 / math.log2(3)) / 2)


def test_ndcg_rejects_mismatched_sizes() -> None:
    with pytest.raises(ValueError, match="2 rows of scores for 1 queries"):
        ndcg_of_scores(np.zeros((2, 3), np.float32), [frozenset({0})])


def test_bm25_scores_match_the_formula() -> None:
    """idf · tf · (k1 + 1) / (tf + k1 · (1 - b + b · length / mean length)), summed over the terms of the query."""
    documents = [["sort", "list"], ["sort", "sort", "file", "name"], [], ["read", "file"]]
    queries = [["sort"], ["sort", "file", "sort"], ["unknown"], []]
    mean_length = sum(map(len, documents)) / len(documents)

    def score(term: str, document: list[str]) -> float:
        frequency, found = document.count(term), sum(term in other for other in documents)
        idf = math.log(1 + (len(documents) - found + 0.5) / (found + 0.5))
        return idf * frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * len(document) / mean_length))

    expected = [[sum(score(term, document) for term in query) for document in documents] for query in queries]
    scores = bm25_scores(tuple(map(" ".join, queries)), tuple(map(" ".join, documents)))
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_cut_vectors_have_length_one() -> None:
    rows = cut(np.array([[3, 4, 12]], np.float32), 2)
    np.testing.assert_allclose(rows, [[0.6, 0.8]], rtol=1e-6)


@TASKS
def test_sets_are_large_enough_and_repeatable(task: DemoTask) -> None:
    first, second = load_evaluation_set(task), load_evaluation_set.__wrapped__(task)
    assert first == second
    assert len(first.queries) == len(first.relevance) == QUERIES >= 300
    assert len(first.documents) >= 1000
    assert len(set(first.documents)) == len(first.documents)
    assert all(found and max(found) < len(first.documents) for found in first.relevance)


def test_each_task_is_the_reverse_of_the_other() -> None:
    forward, backward = load_evaluation_set(BASE_TASK), load_evaluation_set(ADAPTER_TASK)
    assert set(forward.queries) <= set(backward.documents)
    assert set(backward.queries) <= set(forward.documents)


def test_a_task_without_a_set_is_rejected() -> None:
    with pytest.raises(ValueError, match="NAME_TO_CODE"):
        load_evaluation_set(DemoTask.NAME_TO_CODE)


def test_training_never_reads_held_out_modules() -> None:
    held_out = load_evaluation_set(BASE_TASK).modules
    training = {m.name for m in standard_modules() if not m.held_out} | {m.name for m in installed_modules()}
    assert held_out
    assert not held_out & training
    assert held_out <= {m.name for m in standard_modules()}


def test_random_vectors_score_close_to_zero() -> None:
    evaluation_set: EvaluationSet = load_evaluation_set(BASE_TASK)
    assert evaluate(evaluation_set, _random_rows, _random_rows, dim=32) < 0.02


def test_guard_finds_copies() -> None:
    body = "def f(path):\n    handle = open(path)\n    content = handle.read()\n    return content.strip()"
    guard = LeakageGuard([_function(description="Read a file, stripped.", code=body)])
    assert guard.leaks(_function(description="Read a file (stripped)"))
    assert guard.leaks(_function(code=body.replace("def f(path)", "def g(name)")))
    assert not guard.leaks(_function(code="def f(x):\n    result = x + 1\n    return result * 2 + 40"))


def test_held_out_functions_are_distinct() -> None:
    texts = [normalize_text(f.description) for f in held_out_functions() if f.description]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Return the sum of\n    two numbers.\n\n    More.", "Return the sum of two numbers."),
        ("add(a, b) -> int: Return the sum of two numbers.", "Return the sum of two numbers."),
        ("Short.", ""),
        (":param x: what the caller wants to add", ""),
    ],
)
def test_description_of_a_docstring(docstring: str, expected: str) -> None:
    assert describe(docstring) == expected


def test_names_as_words() -> None:
    assert name_words("readHTTPDate_v2") == ["read", "http", "date", "v2"]
    assert hide_name("def add(a):\n    return add", "add") == "def f(a):\n    return add"


@pytest.mark.parametrize("text", ["def f(): pass", "", "naïve 日本語 \U0001f600"])
def test_end_token_is_appended_once(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    end = tokenizer.token_to_id("<|endoftext|>")
    assert end is not None
    assert ids.count(end) == 1
    assert ids[-1] == end
    assert tokenizer.decode(ids) == text


def test_transformers_gives_the_same_ids(tokenizer: Tokenizer) -> None:
    import transformers

    loaded = transformers.AutoTokenizer.from_pretrained(str(CHECKPOINT))
    texts = ["def f(x):\n    return x", "a"]
    assert loaded(texts)["input_ids"] == [e.ids for e in tokenizer.encode_batch(texts)]
    assert (loaded.pad_token, loaded.eos_token, loaded.padding_side) == ("<|endoftext|>", "<|im_end|>", "left")


def test_checkpoint_and_adapter_load() -> None:
    import torch
    import transformers

    from examples.demo.checkpoint import load_embedder, rope_theta

    texts = ["def f(x):\n    return x", "read a file"]
    base = load_embedder(CHECKPOINT)
    plain = base.embed_documents(texts)
    tuned = load_embedder(CHECKPOINT, ADAPTER).embed_documents(texts)
    assert isinstance(base.model, transformers.Qwen3Model)
    config = base.model.config
    assert rope_theta(base.model) == json.loads((CHECKPOINT / "config.json").read_text())["rope_theta"]
    assert config.num_attention_heads * config.head_dim != config.hidden_size
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, rtol=1e-5)
    assert not np.allclose(plain, tuned, atol=1e-2)
    half = load_embedder(CHECKPOINT)
    half.model.to(torch.float16)
    assert (np.sum(half.embed_documents(texts) * plain, axis=1) > 0.999).all()


def test_files_are_small_and_free_of_machine_paths() -> None:
    files = [path for folder in (CHECKPOINT, ADAPTER) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15_000_000
    for path in (*ADAPTER.glob("*.json"), *CHECKPOINT.glob("*config*.json"), DEMO / "training_log.json"):
        text = path.read_text(encoding="utf-8")
        assert not any(part in text for part in ("/root", "/tmp", "/home", "/work")), path


def test_adapter_clearly_improves_its_task() -> None:
    log = json.loads((DEMO / "training_log.json").read_text(encoding="utf-8"))
    figures = log["ndcg_at_10"][ADAPTER_TASK.name]
    assert figures["adapter"]["256"] >= figures["base"]["256"] + 0.05
