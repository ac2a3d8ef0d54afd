"""Cutting of long texts before they are tokenized, where that does not change the tokens that are kept.

A model takes a limited number of tokens, and it would be a waste to tokenize a megabyte of text to keep the first
8,192 of them. A text may be cut between a letter and a space or a punctuation mark that is followed by a letter: with
Qwen's pre-tokenizer, a run of letters ends there whatever comes before and after, Unicode normalization (NFC) composes
nothing across it, and no added token contains it. BPE merges nothing across the border of two pre-tokens, so the
tokens of the part before the cut are the first tokens of the whole text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tokenizers import Tokenizer, models

_QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MARKS = " ,.，。、"
# Latin, Greek, Cyrillic, Hebrew, Arabic, Devanagari, kana, Han and Hangul letters; other scripts have spaces or marks
# between letters of these
_LETTER = "[A-Za-zÀ-ÖØ-öø-ÿα-ωа-яА-Яא-תء-غف-يअ-हぁ-ゖァ-ヺ一-龥가-힣]"
_CUT = re.compile(f"(?<={_LETTER})(?=[{_MARKS}]{_LETTER})")
_SEARCHED = 2_000
"""Characters before the desired length in which a place for the cut is looked for."""
_CHARACTERS_PER_TOKEN = 6
"""Above the average of most texts; a text with longer tokens is cut again at twice the length."""

Describe = Callable[[int], str]
Encode = Callable[[Sequence[str], Describe], list[list[int]]]
"""Tokenizes texts; describes the text at an index in its errors."""


@dataclass(frozen=True, slots=True)
class TextCut:
    """Cuts texts for one tokenizer."""

    tokenizer_allows_cut: bool
    special_tokens: int
    """Tokens that the tokenizer adds to every text."""

    @classmethod
    def for_tokenizer(cls, tokenizer: Tokenizer) -> TextCut:
        """Look at the parts of a tokenizer; one that is not known to allow it never has its texts cut."""
        return cls(_allows_cut(tokenizer), tokenizer.num_special_tokens_to_add(False))

    def encode(
        self, texts: Sequence[str], most_tokens: int, encode: Encode, describe: Describe
    ) -> tuple[list[list[int]], list[bool]]:
        """Tokenize texts as far as their first `most_tokens` tokens need it.

        Args:
            texts: The texts.
            most_tokens: Tokens that are needed of each text.
            encode: Tokenizes texts.
            describe: Returns a text's name for error messages, by its index.

        Returns:
            The ids of each text, and whether it was cut: then the ids are more than `most_tokens`, the first of them
            are those of the whole text, and the others may be anything.
        """
        characters = _CHARACTERS_PER_TOKEN * (most_tokens + 1)
        parts = [self._cut(text, characters) for text in texts]
        rows = encode(parts, describe)
        is_cut = [len(part) < len(text) for part, text in zip(parts, texts, strict=True)]
        for index, text in enumerate(texts):
            length = characters
            while is_cut[index] and len(rows[index]) - self.special_tokens <= most_tokens:
                length *= 2
                part = self._cut(text, length)
                is_cut[index] = len(part) < len(text)
                [rows[index]] = encode([part], partial(_describe_only, describe, index))
        return rows, is_cut

    def _cut(self, text: str, characters: int) -> str:
        """Return the beginning of `text` up to the last place for a cut before `characters`, else the whole text."""
        if not self.tokenizer_allows_cut or len(text) <= 2 * characters:
            return text
        start = max(0, characters - _SEARCHED)
        places = [found.start() for found in _CUT.finditer(text, start, characters)]
        return text[: places[-1]] if places else text


def _describe_only(describe: Describe, index: int, _: int) -> str:
    return describe(index)


def _allows_cut(tokenizer: Tokenizer) -> bool:
    steps = _state(tokenizer.pre_tokenizer).get("pretokenizers", [])
    if [step.get("type") for step in steps] != ["Split", "ByteLevel"]:
        return False
    split, byte_level = steps
    return (
        isinstance(tokenizer.model, models.BPE)
        and split.get("pattern") == {"Regex": _QWEN_PATTERN}
        and (split.get("behavior"), split.get("invert")) == ("Isolated", False)
        and (byte_level.get("add_prefix_space"), byte_level.get("use_regex")) == (False, False)
        and _state(tokenizer.normalizer).get("type", "NFC") == "NFC"
        and all(_is_local(token) for token in tokenizer.get_added_tokens_decoder().values())
    )


def _is_local(token: Any) -> bool:
    """Whether an added token depends on no text around it, and contains no place for a cut."""
    return not (token.lstrip or token.rstrip or token.single_word or set(_MARKS) & set(token.content))


def _state(part: Any) -> dict[str, Any]:
    """Return the settings of a part of a tokenizer; empty if there is none."""
    if part is None:
        return {}
    state: dict[str, Any] = json.loads(part.__getstate__())
    return state
