"""Texts that a tokenizer turns into rows of given lengths."""

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
"""Words that are drawn for one place before all of them are tried in turn."""


def workload_texts(workload: Workload, tokenizer: TextTokenizer | None = None) -> list[str]:
    """Texts whose token rows are as long as the workload's, the end token among them.

    Words of `tokenizer`'s own vocabulary; random letters where none is given, for the checkpoint's one id a byte.
    """
    dice = random.Random(workload.seed)
    lengths = [len(row) for row in workload.rows(vocabulary=2)]
    if tokenizer is None:
        return ["".join(dice.choices(_LETTERS, k=length - 1)) for length in lengths]
    words = vocabulary_words(tokenizer)
    return [_text(length, words, tokenizer, dice) for length in lengths]


def vocabulary_words(tokenizer: TextTokenizer) -> list[str]:
    """Tokens that are a space and letters, in the order of their ids; the letters where there is none."""
    ids = sorted(tokenizer.plain.get_vocab(with_added_tokens=False).values())
    pieces = tokenizer.plain.decode_batch([[id_] for id_ in ids])
    return [piece[1:] for piece in pieces if _WORD.fullmatch(piece)] or list(string.ascii_lowercase)


def _text(length: int, words: Sequence[str], tokenizer: TextTokenizer, dice: random.Random) -> str:
    """A text of `length` tokens; of fewer only where no word makes it longer without making it too long."""
    text, reached = "", _tokens("", tokenizer)
    while reached < length:
        for word in itertools.chain(_draw(words, dice), words):
            longer = f"{text} {word}" if text else word
            tokens = _tokens(longer, tokenizer)
            if reached < tokens <= length:
                text, reached = longer, tokens
                break
        else:
            break
    return text


def _draw(words: Sequence[str], dice: random.Random) -> Iterator[str]:
    """A few words, the first of them as often as a language's: a merged vocabulary begins with the frequent ones."""
    for _ in range(_DRAWS):
        # Zipf's law: the chance of a word is the inverse of its rank
        yield words[int(len(words) ** dice.random()) - 1]


def _tokens(text: str, tokenizer: TextTokenizer) -> int:
    return len(tokenizer.plain.encode(text).ids)
