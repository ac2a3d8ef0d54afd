"""Words and character n-grams of the tokens of a tokenizer.

` signal`, `Signal` and `_signal` are three different tokens. They should share what training learns about one of them,
and share a part of it with `signals`.
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
    """Word and character n-grams of each of V tokens."""

    words: Tensor
    """int64 [V]: index of the token's letters in lower case; a token with less than two letters is a separate word."""
    of_letters: tuple[bool, ...]
    """Whether the token contains a letter."""
    grams: Tensor
    """Sparse float32 [V, n-grams], rows of length 1, or zero for tokens with less than three letters."""

    @property
    def word_count(self) -> int:
        """Number of different words."""
        return int(self.words.max()) + 1


def find_token_words(tokenizer: Tokenizer) -> TokenWords:
    """Return words and n-grams (Bojanowski et al. 2017) of all tokens; added tokens have no letters."""
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
