"""Files, training data and evaluation of the demo reranker."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen3ForCausalLM

from examples.demo.batches import TokenPair
from examples.demo.evaluation import FloatArray
from examples.demo.loop import Schedule
from examples.demo.reranking.bag import train_bag
from examples.demo.reranking.evaluation import CANDIDATES, evaluate_reranking
from examples.demo.reranking.lists import NEGATIVES, TRAINING_BODY_TOKENS, TrainingList, list_batches
from examples.demo.reranking.loop import train_reranker
from examples.demo.reranking.model import load_reranker, new_reranker, score_logits
from examples.demo.reranking.start import BAG_SIZE, initialize_as_matcher
from examples.demo.reranking.tokens import PairRows, reranker_tokenizer
from examples.demo.reranking.words import find_token_words
from examples.demo.tasks import BASE_TASK

DEMO = Path(__file__).parents[1] / "examples" / "demo"
RERANKER = DEMO / "reranker"
PAIRS = [
    ("sort a list of numbers", "def sort_numbers(numbers):\n    return sorted(numbers)"),
    ("sort a list of numbers", "def close(self):\n    self._socket.close()"),
    ("", "return 1"),
    ("read a file", ""),
    ("naïve 日本語 \U0001f600", "yes no <|im_end|> <Document>: <Query>:"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(RERANKER / "tokenizer.json"))


def test_yes_and_no_are_tokens_and_nothing_is_appended(tokenizer: Tokenizer) -> None:
    loaded = AutoTokenizer.from_pretrained(str(RERANKER))
    for word in ("yes", "no"):
        [token] = tokenizer.encode(word).ids
        assert loaded.convert_tokens_to_ids(word) == token
    for text in (text for pair in PAIRS for text in pair):
        ids = tokenizer.encode(text).ids
        assert loaded(text)["input_ids"] == ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_other_ids_match_the_embedding_model(tokenizer: Tokenizer) -> None:
    embedding = Tokenizer.from_file(str(DEMO / "checkpoint" / "tokenizer.json"))
    assert json.loads(reranker_tokenizer(embedding).to_str()) == json.loads(tokenizer.to_str())
    before, after = embedding.get_vocab(), tokenizer.get_vocab()
    assert len(before) == len(after)
    assert {word for word in after if before.get(word) != after[word]} == {"yes"} - before.keys()


def test_files_are_a_causal_lm_small_and_free_of_machine_paths() -> None:
    config = json.loads((RERANKER / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert sum(path.stat().st_size for path in RERANKER.iterdir()) <= 9_000_000
    for path in RERANKER.glob("*config*.json"):
        text = path.read_text(encoding="utf-8")
        assert not any(part in text for part in ("/root", "/tmp", "/home", "/work")), path


def test_scores_with_a_shared_prefix_equal_the_full_forward_pass() -> None:
    reranker = load_reranker(RERANKER)
    rows = reranker.pairs.rows(PAIRS)
    model = Qwen3ForCausalLM.from_pretrained(str(RERANKER), dtype=torch.float32)
    answers = reranker.pairs.answers
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([reranker.pairs.prefix + row])).logits[0, -1] for row in rows]
    expected = [float(each[answers.yes] - each[answers.no]) for each in logits]
    np.testing.assert_allclose(reranker.score(PAIRS), expected, atol=1e-3)
    np.testing.assert_allclose(reranker.score(PAIRS[2:3]), expected[2:3], atol=1e-3)


def test_reranking_clearly_improves_retrieval() -> None:
    log = json.loads((DEMO / "training_log.json").read_text(encoding="utf-8"))
    figures = log["retrieve_then_rerank"]
    assert figures["retrieval"] == pytest.approx(log["ndcg_at_10"][BASE_TASK.name]["base"]["256"], abs=1e-3)
    assert figures["reranked"] >= figures["retrieval"] + 0.03


def test_evaluation_by_hand() -> None:
    """Three queries: the relevant document moves from rank 2 to 1, from 1 to 3, and is not a candidate."""
    documents = [f"document {number}" for number in range(CANDIDATES + 1)]
    descending = -np.arange(CANDIDATES + 1, dtype=np.float32)
    scores = {("a", 1): 2.0, ("b", 1): 2.0, ("b", 2): 1.0}
    positions = {document: position for position, document in enumerate(documents)}

    def score(pairs: list[tuple[str, str]]) -> FloatArray:
        assert len(pairs) == 3 * CANDIDATES
        return np.array([scores.get((query, positions[document]), 0.0) for query, document in pairs], np.float32)

    relevance = [frozenset({1}), frozenset({0}), frozenset({CANDIDATES})]
    quality = evaluate_reranking(["a", "b", "c"], documents, relevance, np.stack([descending] * 3), score)
    assert quality.retrieval == pytest.approx((1 / math.log2(3) + 1) / 3)
    assert quality.reranked == pytest.approx((1 + 0.5) / 3)
    assert quality.best_possible == pytest.approx(2 / 3)


def test_lists_start_with_the_relevant_document_and_rows_end_with_the_suffix(tokenizer: Tokenizer) -> None:
    rows = PairRows(tokenizer)
    long = "def f():\n" + "    call_something(with_words)\n" * 40
    lists = [
        TrainingList(query=f"query {n}", answer=f"answer {n}", others=(long, *(f"other {k}" for k in range(9))))
        for n in range(64)
    ]
    seen = set()
    stream = list_batches(lists, rows, 4, random.Random(1))
    for _ in range(16):
        batch = next(stream)
        assert len(batch) == 4 * (1 + NEGATIVES)
        assert all(row[-len(rows.suffix) :] == rows.suffix for row in batch)
        assert max(map(len, batch)) <= TRAINING_BODY_TOKENS + len(rows.suffix)
        for row in batch[:: 1 + NEGATIVES]:
            text = tokenizer.decode(row[: -len(rows.suffix)], skip_special_tokens=False)
            query, answer = text.split("\n<Document>: ")
            assert answer.split() == ["answer", query.split()[1]]
            seen.add(query)
    assert len(seen) == 64


def test_forms_of_a_word_share_a_word(tokenizer: Tokenizer) -> None:
    words = find_token_words(tokenizer)
    [[file], [spaced], [other]] = (tokenizer.encode(text).ids for text in ("file", " file", " data"))
    assert file != spaced
    assert words.words[file] == words.words[spaced] != words.words[other]


def test_initial_weights_prefer_shared_words_and_training_lowers_the_loss(tokenizer: Tokenizer) -> None:
    """On four topics: a bag of words, the weights initialized from it, and a few training steps."""
    topics = ["sort numbers", "read file", "send message", "parse date"]
    documents = ["def sort(numbers):", "def read(file):", "def send(message):", "def parse(date):"]
    pairs = [
        TokenPair(task=BASE_TASK, module="m", query=tokenizer.encode(topic).ids, document=tokenizer.encode(code).ids)
        for topic, code in zip(topics * 3, documents * 3, strict=True)
    ]
    words, rows = find_token_words(tokenizer), PairRows(tokenizer)
    schedule = Schedule(steps=20, batch_pairs=4, peak_learning_rate=1e-2, warmup_steps=2, temperature=0.1)
    bag = train_bag(pairs, words, BAG_SIZE, schedule, seed=1)
    model = new_reranker(seed=1)
    initialize_as_matcher(model, bag, words, rows)
    with torch.inference_mode():
        logits = torch.stack(
            [score_logits(model, rows, rows.rows([(topic, code) for code in documents])) for topic in topics]
        )
    assert logits.argmax(dim=1).tolist() == [0, 1, 2, 3]
    others = tuple(f"def other_{n}(): pass" for n in range(9))
    lists = [TrainingList(query=a, answer=b, others=others) for a, b in zip(topics * 8, documents * 8, strict=True)]
    short = Schedule(steps=6, batch_pairs=2, peak_learning_rate=1e-3, warmup_steps=1)
    before = [weights.clone() for weights in model.parameters()]
    [logged] = train_reranker(model, rows, lists, short, seed=1)
    assert logged.step == 6
    assert 0 < logged.loss < math.log(1 + NEGATIVES)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
