"""Served texts have as many tokens as the workload's rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from benchmarks.serving.texts import vocabulary_words, workload_texts
from benchmarks.text_tokenizer import TextTokenizer, parse_tokenizer, read_tokenizer
from benchmarks.workload import WORKLOADS, EqualLengths, Workload

_END = "<end>"
_CORPUS = ("the cat sat on the mat", "the dog sat on the cat", "a cat and a dog on a mat") * 4


def _trained(vocabulary: int) -> TextTokenizer:
    """Train a byte-level BPE tokenizer of at most `vocabulary` ids, followed by the end token."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    plain.train_from_iterator(_CORPUS, trainer)
    plain.add_special_tokens([_END])
    plain.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, plain.token_to_id(_END))]
    )
    return parse_tokenizer(plain.to_str().encode())


def _lengths(workload: Workload) -> list[int]:
    return [len(row) for row in workload.rows(vocabulary=2)]


@pytest.mark.parametrize("name", ["mix", "tiny"])
def test_texts_for_a_real_tokenizer_have_the_lengths_of_the_rows(name: str, project_root: Path) -> None:
    tokenizer = read_tokenizer(project_root / "examples" / "demo" / "checkpoint" / "tokenizer.json")
    texts = workload_texts(WORKLOADS[name], tokenizer)
    assert [len(row) for row in tokenizer.rows(texts)] == _lengths(WORKLOADS[name])
    assert all(row[-1] == tokenizer.end_token_id for row in tokenizer.rows(texts))
    assert texts == workload_texts(WORKLOADS[name], tokenizer)
    assert {word for text in texts for word in text.split(" ")} <= set(vocabulary_words(tokenizer))
    assert len(set(texts)) == len(texts)


def test_words_are_in_the_order_of_the_vocabulary() -> None:
    words = vocabulary_words(_trained(400))
    assert set(words) >= {"the", "cat", "dog", "sat", "on", "mat"}
    # the most frequent pairs are merged first
    assert words.index("on") < words.index("the") < words.index("and")


def test_text_is_shorter_only_if_no_word_fits() -> None:
    letters = _trained(1)
    assert vocabulary_words(letters)[:2] == ["a", "b"]
    # the first letter is one token, each further one is two (space and letter), and the end token is one
    for length, reached in ((2, 2), (3, 2), (4, 4), (7, 6), (8, 8)):
        (text,) = workload_texts(Workload(name="one", seed=3, lengths=EqualLengths(texts=1, longest=length)), letters)
        assert list(map(len, letters.rows([text]))) == [reached]


def test_letters_are_tokens_of_the_byte_level_tokenizer() -> None:
    texts = workload_texts(WORKLOADS["mix"])
    assert [len(text) + 1 for text in texts] == _lengths(WORKLOADS["mix"])
