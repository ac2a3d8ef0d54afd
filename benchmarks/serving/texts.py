"""Texts whose tokens form rows of given lengths."""

from __future__ import annotations

import itertools
import random
import re
import string
from collections.abc import Iterator, Sequence

from ..text_tokenizer import TextTokenizer
from ..workload import Workload

_LETTERS = string.ascii_lowercase + " "
_WORD = re.compile(" [a-z]{2,}")
_DRAWS = 16
"""Words that are drawn for one position before all words are tried in order."""


def workload_texts(workload: Workload, tokenizer: TextTokenizer | None = None) -> list[str]:
    """Return texts whose token rows, including the end token, are as long as the workload's.

    Args:
        workload: the workload.
        tokenizer: the texts consist of words of its vocabulary; None is the byte-level tokenizer, with random letters.
    """
    rng = random.Random(workload.seed)
    lengths = [len(row) for row in workload.rows(vocabulary=2)]
    if tokenizer is None:
        return ["".join(rng.choices(_LETTERS, k=length - 1)) for length in lengths]
    words = vocabulary_words(tokenizer)
    return [_text(length, words, tokenizer, rng) for length in lengths]


def vocabulary_words(tokenizer: TextTokenizer) -> list[str]:
    """Return the words of two or more letters in the vocabulary, by id, or the alphabet if there are none."""
    ids = sorted(tokenizer.tokenizer.get_vocab(with_added_tokens=False).values())
    pieces = tokenizer.tokenizer.decode_batch([[id_] for id_ in ids])
    return [piece[1:] for piece in pieces if _WORD.fullmatch(piece)] or list(string.ascii_lowercase)


def _text(length: int, words: Sequence[str], tokenizer: TextTokenizer, rng: random.Random) -> str:
    """Return a text of `length` tokens, or of fewer if every further word would exceed `length`."""
    text, reached = "", _count_tokens("", tokenizer)
    while reached < length:
        for word in itertools.chain(_draw(words, rng), words):
            longer = f"{text} {word}" if text else word
            tokens = _count_tokens(longer, tokenizer)
            if reached < tokens <= length:
                text, reached = longer, tokens
                break
        else:
            break
    return text


def _draw(words: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Draw words with the frequencies of a natural language; a BPE vocabulary starts with the most frequent ones."""
    for _ in range(_DRAWS):
        # Zipf's law: the probability of a word is proportional to the inverse of its rank
        yield words[int(len(words) ** rng.random()) - 1]


def _count_tokens(text: str, tokenizer: TextTokenizer) -> int:
    return len(tokenizer.tokenizer.encode(text).ids)
