"""Prompted texts to token rows, by the very tokenizer that the manifest names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .errors import InvalidInputError, ManifestError
from .manifest import TokenizerIdentity
from .texts import Texts


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Token ids of some texts, ready for the model: no row is empty or longer than the model takes."""

    ids: NDArray[np.int64]
    """`[tokens]`, the rows end to end."""
    starts: NDArray[np.int64]
    """`[rows + 1]`, where each row begins in `ids`; the last is the number of tokens."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """INT64 `[rows]`, tokens of each row."""
        return self.starts[1:] - self.starts[:-1]

    def row(self, index: int) -> NDArray[np.int64]:
        """INT64 `[tokens]`, a view of one row."""
        return self.ids[self.starts[index] : self.starts[index + 1]]


def join_rows(rows: Sequence[Sequence[int]]) -> TokenRows:
    """The rows end to end."""
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    return TokenRows(np.fromiter(chain.from_iterable(rows), np.int64, count=int(starts[-1])), starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTokenizer:
    """The tokenizer with the manifest's end token and length limit."""

    tokenizer: Tokenizer
    end_token_id: int | None
    max_tokens: int

    def tokenize(self, texts: Texts, prompted: Sequence[str], *, truncate: bool) -> TokenRows:
        """Rows of `prompted`, each with its end token exactly once and at most `max_tokens` long.

        An end token that a text itself ends with is not doubled. A longer row keeps its first ids and its
        end token, as transformers' `truncation=True, max_length=max_tokens` does. `texts` are the caller's,
        for messages. Raises InvalidInputError for a row without a token, and for a long one where not `truncate`.
        """
        encodings = self.tokenizer.encode_batch_fast(list(prompted))
        rows = [encoding.ids for encoding in encodings]
        for index, row in enumerate(rows):
            length = self._close_row(row)
            if length > self.max_tokens and not truncate:
                raise too_long(texts.name(index), f"{length} tokens with prompt and end token", self.max_tokens)
            if not row:
                raise InvalidInputError(f"{texts.name(index)} has no token, and the model appends no end token")
        return join_rows(rows)

    def _close_row(self, row: list[int]) -> int:
        """Length that `row` would have uncut, after cutting it and setting its end token in place."""
        if self.end_token_id is None:
            length = len(row)
            del row[self.max_tokens :]
            return length
        self._strip_end(row)
        length = len(row) + 1
        del row[self.max_tokens - 1 :]
        # the cut may fall right behind an end token inside the text
        self._strip_end(row)
        row.append(self.end_token_id)
        return length

    def _strip_end(self, row: list[int]) -> None:
        while row and row[-1] == self.end_token_id:
            row.pop()


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTokenizer:
    """The tokenizer with the fixed ids around every body of a reranker and its length limit."""

    tokenizer: Tokenizer
    prefix: list[int]
    suffix: list[int]
    max_tokens: int

    def tokenize(self, texts: Texts, bodies: Sequence[str], *, truncate: bool) -> TokenRows:
        """Rows of prefix, body and suffix, at most `max_tokens` long; no special token is added.

        Of a body that is too long the first ids are kept, as the model card's code does with `truncation=True`,
        `max_length=max_tokens - len(prefix) - len(suffix)`; prefix and suffix are always whole. `texts` are the
        caller's, for messages. Raises InvalidInputError for a long body where not `truncate`.
        """
        room = self.max_tokens - len(self.prefix) - len(self.suffix)
        rows = []
        for index, encoding in enumerate(self.tokenizer.encode_batch_fast(list(bodies), add_special_tokens=False)):
            body = encoding.ids
            if len(body) > room and not truncate:
                length = len(body) - room + self.max_tokens
                raise too_long(texts.name(index), f"{length} tokens with query and prompt", self.max_tokens)
            rows.append([*self.prefix, *body[:room], *self.suffix])
        return join_rows(rows)


def make_pair_tokenizer(tokenizer: Tokenizer, prefix: str, suffix: str, max_tokens: int) -> PairTokenizer:
    """The pair tokenizer of a manifest's prefix and suffix.

    Raises ManifestError where they leave no room for a body.
    """
    fixed = [tokenizer.encode(text, add_special_tokens=False).ids for text in (prefix, suffix)]
    if sum(map(len, fixed)) >= max_tokens:
        raise ManifestError(
            f"the model takes {max_tokens} tokens, its prompt alone has {sum(map(len, fixed))}: "
            "export it with more --max-tokens"
        )
    return PairTokenizer(tokenizer=tokenizer, prefix=fixed[0], suffix=fixed[1], max_tokens=max_tokens)


def too_long(name: str, length: str, max_tokens: int) -> InvalidInputError:
    """The error for a text that may not be cut."""
    return InvalidInputError(
        f"{name} has {length}, the model takes {max_tokens}: shorten it or let it be cut with truncate=True"
    )


def load_tokenizer(file: Path, identity: TokenizerIdentity) -> Tokenizer:
    """The tokenizer of `file`, its own padding and truncation switched off.

    Raises InvalidInputError where the file cannot be read, ManifestError where its sha256 is not the manifest's.
    """
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise InvalidInputError(f"tokenizer: cannot read {file}: {exc.strerror or exc}") from exc
    digest = hashlib.sha256(content).hexdigest()
    if digest != identity.sha256:
        raise ManifestError(
            f"{file} is not the model's tokenizer: its sha256 is {digest}, the manifest's "
            f"{identity.sha256}; pass tokenizer= the tokenizer.json beside the model's config.pbtxt"
        )
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as exc:  # tokenizers raises no narrower one
        raise ManifestError(f"{file}: this version of tokenizers cannot read it ({exc}); upgrade tokenizers") from exc
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
