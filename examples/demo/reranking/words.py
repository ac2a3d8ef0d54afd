"""Which word a token is a form of, and the letters it is made of.

` signal`, `Signal` and `_signal` are three tokens to a tokenizer. What is learned of one should hold for the others,
and something of it for `signals`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

_GRAM_LENGTHS = (3, 4, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWords:
    """For each of V tokens its word and its letter groups."""

    words: Tensor
    """int64 [V]: an index of the letters in lower case; tokens with less than two letters have a word of their own."""
    of_letters: tuple[bool, ...]
    """Whether the token has a letter."""
    grams: Tensor
    """Sparse float32 [V, groups], rows of length 1, or zero for tokens with less than three letters."""

    @property
    def word_count(self) -> int:
        """How many words there are."""
        return int(self.words.max()) + 1


def words_of(tokenizer: Tokenizer) -> TokenWords:
    """The words and letter groups of all tokens; added tokens have none (Bojanowski et al. 2017 for the groups)."""
    count = tokenizer.get_vocab_size(with_added_tokens=True)
    added = tokenizer.get_added_tokens_decoder()
    known_words: dict[str, int] = {}
    known_grams: dict[str, int] = {}
    words: list[int] = []
    of_letters: list[bool] = []
    rows: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    for token in range(count):
        letters = "" if token in added else re.sub("[^a-z]", "", tokenizer.decode([token]).lower())
        words.append(known_words.setdefault(letters if len(letters) > 1 else f"token {token}", len(known_words)))
        of_letters.append(bool(letters))
        grams = _grams(letters) if len(letters) > 2 else []
        rows += [token] * len(grams)
        columns += [known_grams.setdefault(gram, len(known_grams)) for gram in grams]
        weights += [1 / math.sqrt(len(grams))] * len(grams) if grams else []
    shape = (count, len(known_grams))
    grams_of = torch.sparse_coo_tensor(
        torch.tensor([rows, columns]), torch.tensor(weights), shape, check_invariants=True
    )
    return TokenWords(words=torch.tensor(words), of_letters=tuple(of_letters), grams=grams_of.coalesce())


def _grams(letters: str) -> list[str]:
    text = f"<{letters}>"
    return [text[at : at + length] for length in _GRAM_LENGTHS for at in range(len(text) - length + 1)]
