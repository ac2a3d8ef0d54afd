"""A `tokenizer.json`, and the end token that it appends to every text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from .record import TokenizerFacts

_PROBE = "a text"


class TokenizerUnusable(Exception):
    """Why the benchmark's checkpoint cannot have a tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenizer:
    """The file's content beside what it says."""

    content: bytes = field(repr=False)
    plain: Tokenizer = field(repr=False, compare=False)
    end_token_id: int
    """The only id that it adds to a text, behind it."""

    @property
    def end_token(self) -> str:
        """As the vocabulary has it."""
        return str(self.plain.id_to_token(self.end_token_id))

    @property
    def facts(self) -> TokenizerFacts:
        """What a record says of it."""
        vocabulary = max(self.plain.get_vocab(with_added_tokens=True).values()) + 1
        return TokenizerFacts(sha256=hashlib.sha256(self.content).hexdigest(), vocabulary=vocabulary)

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, the end token last."""
        return [list(encoding.ids) for encoding in self.plain.encode_batch(list(texts))]


def read_tokenizer(file: Path) -> TextTokenizer:
    """The tokenizer in `file`; raises TokenizerUnusable."""
    try:
        return parse_tokenizer(file.read_bytes())
    except (OSError, TokenizerUnusable) as exc:
        raise TokenizerUnusable(f"{file.name}: {exc}") from exc


def parse_tokenizer(content: bytes) -> TextTokenizer:
    """The tokenizer whose JSON `content` is; raises TokenizerUnusable."""
    try:
        plain = Tokenizer.from_buffer(content)
    except Exception as exc:
        raise TokenizerUnusable(f"not the JSON of a tokenizer ({exc})") from exc
    plain.no_padding()
    plain.no_truncation()
    bare, whole = (plain.encode(_PROBE, add_special_tokens=added).ids for added in (False, True))
    if not whole or whole[:-1] != bare:
        raise TokenizerUnusable(
            "its post-processor does not append one end token to a text; "
            "give one that does, as Qwen3-Embedding's appends <|endoftext|>"
        )
    return TextTokenizer(content=content, plain=plain, end_token_id=whole[-1])
