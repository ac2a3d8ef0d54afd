"""Served texts have the workload's lengths in the tokens of the tokenizer that they go through."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from benchmarks.serving.texts import vocabulary_words, workload_texts
from benchmarks.text_tokenizer import TextTokenizer, parse_tokenizer, read_tokenizer
from benchmarks.workload import WORKLOADS, Equal, Workload

_END = "<end>"
_SAID = ("the cat sat on the mat", "the dog sat on the cat", "a cat and a dog on a mat") * 4


def _trained(vocabulary: int) -> TextTokenizer:
    """Byte-level BPE of so many ids at most, of which the highest is the end token's."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    plain.train_from_iterator(_SAID, trainer)
    plain.add_special_tokens([_END])
    plain.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, plain.token_to_id(_END))]
    )
    return parse_tokenizer(plain.to_str().encode())


def _lengths(workload: Workload) -> list[int]:
    return [len(row) for row in workload.rows(vocabulary=2)]


@pytest.mark.parametrize("name", ["mix", "tiny"])
def test_texts_of_a_real_tokenizer_have_the_rows_lengths(name: str, project_root: Path) -> None:
    tokenizer = read_tokenizer(project_root / "examples" / "demo" / "checkpoint" / "tokenizer.json")
    texts = workload_texts(WORKLOADS[name], tokenizer)
    assert [len(row) for row in tokenizer.rows(texts)] == _lengths(WORKLOADS[name])
    assert all(row[-1] == tokenizer.end_token_id for row in tokenizer.rows(texts))
    assert texts == workload_texts(WORKLOADS[name], tokenizer)
    assert {word for text in texts for word in text.split(" ")} <= set(vocabulary_words(tokenizer))
    assert len(set(texts)) == len(texts)


def test_words_are_the_vocabularys_own_in_its_order() -> None:
    words = vocabulary_words(_trained(400))
    assert set(words) >= {"the", "cat", "dog", "sat", "on", "mat"}
    # what comes together most often is merged first
    assert words.index("on") < words.index("the") < words.index("and")


def test_text_is_shorter_only_where_no_word_fits() -> None:
    letters = _trained(1)
    assert vocabulary_words(letters)[:2] == ["a", "b"]
    # a letter has one token and every further one two, its space among them, and then comes the end token
    for wished, reached in ((2, 2), (3, 2), (4, 4), (7, 6), (8, 8)):
        (text,) = workload_texts(Workload(name="one", seed=3, lengths=Equal(texts=1, longest=wished)), letters)
        assert list(map(len, letters.rows([text]))) == [reached]


def test_without_a_tokenizer_a_letter_is_a_token() -> None:
    texts = workload_texts(WORKLOADS["mix"])
    assert [len(text) + 1 for text in texts] == _lengths(WORKLOADS["mix"])
