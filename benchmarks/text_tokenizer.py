"""Tokenizers loaded from a `tokenizer.json` that appends one end token to every text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from .record import TokenizerInfo

_PROBE = "a text"


class UnusableTokenizerError(Exception):
    """The file is not a tokenizer, or does not append exactly one end token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenizer:
    """A tokenizer and the file that it was loaded from."""

    content: bytes = field(repr=False)
    """Content of `tokenizer.json`."""
    tokenizer: Tokenizer = field(repr=False, compare=False)
    end_token_id: int
    """Id that is appended to every text."""

    @property
    def end_token(self) -> str:
        """Text of the end token."""
        return str(self.tokenizer.id_to_token(self.end_token_id))

    @property
    def info(self) -> TokenizerInfo:
        """Identity of the tokenizer for the record."""
        vocabulary = max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        return TokenizerInfo(sha256=hashlib.sha256(self.content).hexdigest(), vocabulary=vocabulary)

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize `texts`, including the end token."""
        return [list(encoding.ids) for encoding in self.tokenizer.encode_batch(list(texts))]


def read_tokenizer(file: Path) -> TextTokenizer:
    """Load a tokenizer.

    Raises:
        UnusableTokenizerError: if the file cannot be read or is not a suitable tokenizer.
    """
    try:
        return parse_tokenizer(file.read_bytes())
    except (OSError, UnusableTokenizerError) as exc:
        raise UnusableTokenizerError(f"{file.name}: {exc}") from exc


def parse_tokenizer(content: bytes) -> TextTokenizer:
    """Load a tokenizer from the content of a `tokenizer.json`.

    Raises:
        UnusableTokenizerError: if `content` is not a suitable tokenizer.
    """
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as exc:
        raise UnusableTokenizerError(f"invalid tokenizer JSON ({exc})") from exc
    tokenizer.no_padding()
    tokenizer.no_truncation()
    without, with_special = (tokenizer.encode(_PROBE, add_special_tokens=added).ids for added in (False, True))
    if not with_special or with_special[:-1] != without:
        raise UnusableTokenizerError(
            "its post-processor does not append exactly one end token to a text; "
            "use one that does, for example Qwen3-Embedding's, which appends <|endoftext|>"
        )
    return TextTokenizer(content=content, tokenizer=tokenizer, end_token_id=with_special[-1])
