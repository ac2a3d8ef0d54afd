"""Tokenization of prompted texts with the tokenizer that the manifest names."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .errors import InvalidInputError, ManifestError
from .manifest import TokenizerIdentity
from .manifest.panics import PanicError, panics_as_errors
from .text_cut import TextCut
from .tokenizer_source import TokenizerFile


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Token ids of texts, ready for the model: no row is empty or longer than the model accepts."""

    ids: NDArray[np.int64]
    """`[tokens]`, the rows concatenated."""
    starts: NDArray[np.int64]
    """`[rows + 1]`, start of each row in `ids`; the last element is the number of tokens."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 `[rows]`, number of tokens of each row."""
        return self.starts[1:] - self.starts[:-1]

    def row(self, index: int) -> NDArray[np.int64]:
        """Return a view of one row, int64 `[tokens]`."""
        return self.ids[self.starts[index] : self.starts[index + 1]]


def join_rows(rows: Sequence[Sequence[int]]) -> TokenRows:
    """Concatenate rows of token ids."""
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    return TokenRows(np.fromiter(chain.from_iterable(rows), np.int64, count=int(starts[-1])), starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTokenizer:
    """Tokenizer of an embedding model, with the manifest's end token and length limit."""

    tokenizer: Tokenizer
    end_token_id: int | None
    max_tokens: int
    _cut: TextCut = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cut", TextCut.for_tokenizer(self.tokenizer))

    def tokenize(self, prompted: Sequence[str], describe: Callable[[int], str], *, truncate: bool) -> TokenRows:
        """Tokenize texts; every row has exactly one end token at its end and at most `max_tokens` tokens.

        An end token at the end of a text is not doubled. A longer row keeps its first ids and the end token, as with
        `truncation=True, max_length=max_tokens` in transformers.

        Args:
            prompted: Texts with their prompts.
            describe: Returns a text's name for error messages, by its index.
            truncate: Whether to truncate rows that are too long.

        Raises:
            InvalidInputError: A row has no tokens, is too long and `truncate` is False, or cannot be tokenized.
        """
        encode = partial(_encode, self.tokenizer, add_special_tokens=True)
        rows, is_cut = self._cut.encode(prompted, self.max_tokens, encode, describe)
        for index, row in enumerate(rows):
            length = self._truncate_and_end(row)
            if length > self.max_tokens and not truncate:
                count = f"{'more than ' if is_cut[index] else ''}{length}"
                raise too_long(describe(index), f"{count} tokens with prompt and end token", self.max_tokens)
            if not row:
                raise InvalidInputError(
                    f"{describe(index)} has no tokens, and the model appends no end token: leave the text out"
                )
        return join_rows(rows)

    def _truncate_and_end(self, row: list[int]) -> int:
        """Truncate `row` and append the end token, in place; return the length without truncation."""
        if self.end_token_id is None:
            length = len(row)
            del row[self.max_tokens :]
            return length
        self._strip_end(row)
        length = len(row) + 1
        del row[self.max_tokens - 1 :]
        # the truncated row may end with an end token inside the text
        self._strip_end(row)
        row.append(self.end_token_id)
        return length

    def _strip_end(self, row: list[int]) -> None:
        while row and row[-1] == self.end_token_id:
            row.pop()


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTokenizer:
    """Tokenizer of a reranker, with the fixed ids around every body and the length limit."""

    tokenizer: Tokenizer
    prefix: list[int]
    suffix: list[int]
    max_tokens: int
    _cut: TextCut = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cut", TextCut.for_tokenizer(self.tokenizer))

    def tokenize(
        self,
        bodies: Sequence[str],
        describe: Callable[[int], str],
        before_document: Callable[[int], str],
        *,
        truncate: bool,
    ) -> TokenRows:
        """Tokenize bodies to rows of prefix, body and suffix, at most `max_tokens` long, without special tokens.

        A body that is too long keeps its first ids, as in the model card's code with `truncation=True,
        max_length=max_tokens - len(prefix) - len(suffix)`; prefix and suffix are never truncated.

        Args:
            bodies: The filled body templates.
            describe: Returns a document's name for error messages, by its index.
            before_document: Returns the part of a body before the document, by its index.
            truncate: Whether to truncate bodies that are too long.

        Raises:
            InvalidInputError: A body is too long and `truncate` is False, or cannot be tokenized.

        Warns:
            UserWarning: Nothing of a document is left after truncation.
        """
        max_body = self.max_tokens - len(self.prefix) - len(self.suffix)
        rows, crowded = [], []
        encode = partial(_encode, self.tokenizer, add_special_tokens=False)
        encoded, is_cut = self._cut.encode(bodies, max_body, encode, lambda index: f"{describe(index)} with its query")
        for index, body in enumerate(encoded):
            if len(body) > max_body and not truncate:
                length = len(body) - max_body + self.max_tokens
                count = f"{'more than ' if is_cut[index] else ''}{length}"
                raise too_long(describe(index), f"{count} tokens with query and prompt", self.max_tokens)
            if len(body) > max_body and self._leaves_no_room(before_document(index), max_body):
                crowded.append(index)
            rows.append([*self.prefix, *body[:max_body], *self.suffix])
        if crowded:
            others = f" (and {len(crowded) - 1} more)" if len(crowded) > 1 else ""
            warnings.warn(
                f"the query leaves no room for {describe(crowded[0])}{others}: query and prompt take all "
                f"{self.max_tokens} tokens that the model accepts, so the score says nothing about the document; "
                "shorten the query",
                stacklevel=5,
            )
        return join_rows(rows)

    def _leaves_no_room(self, before: str, max_body: int) -> bool:
        """Whether the part `before` the document takes all of the body's tokens."""
        [ids] = _encode(self.tokenizer, [before], lambda _: "the query", add_special_tokens=False)
        return len(ids) >= max_body


def make_pair_tokenizer(tokenizer: Tokenizer, prefix: str, suffix: str, max_tokens: int) -> PairTokenizer:
    """Create the pair tokenizer for a manifest's prefix and suffix.

    Raises:
        ManifestError: Prefix and suffix leave no tokens for a body, or cannot be tokenized.
    """
    try:
        with panics_as_errors():
            fixed = [tokenizer.encode(text, add_special_tokens=False).ids for text in (prefix, suffix)]
    except PanicError as exc:
        raise ManifestError(f"the model's tokenizer cannot process its prompt ({exc}): export the model again") from exc
    if sum(map(len, fixed)) >= max_tokens:
        raise ManifestError(
            f"the model accepts {max_tokens} tokens, but its prompt alone has {sum(map(len, fixed))}: "
            "export it with a larger max_tokens"
        )
    return PairTokenizer(tokenizer=tokenizer, prefix=fixed[0], suffix=fixed[1], max_tokens=max_tokens)


def _encode(
    tokenizer: Tokenizer, texts: Sequence[str], describe: Callable[[int], str], *, add_special_tokens: bool
) -> list[list[int]]:
    """Return the token ids of `texts`; raise InvalidInputError that describes a text at which the tokenizer panics.

    It does so where its regular expression takes more than ten million steps, such as in ten million spaces.
    """
    try:
        with panics_as_errors():
            encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
    except PanicError as exc:
        name = describe(_find_panic(tokenizer, texts))
        raise InvalidInputError(f"{name} cannot be tokenized ({exc}): split it, or shorten runs of spaces") from exc
    return [encoding.ids for encoding in encodings]


def _find_panic(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Return the position of the longest of `texts` at which the tokenizer panics."""
    *suspects, last = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    for index in suspects:
        try:
            with panics_as_errors():
                tokenizer.encode(texts[index])
        except PanicError:
            return index
    return last


def too_long(name: str, length: str, max_tokens: int) -> InvalidInputError:
    """Return the error for a text that is too long and must not be truncated."""
    return InvalidInputError(
        f"{name} has {length}, but the model accepts {max_tokens}: shorten it, or allow truncation with truncate=True"
    )


def load_tokenizer(file: TokenizerFile, identity: TokenizerIdentity) -> Tokenizer:
    """Load a tokenizer.json, with its padding and truncation disabled.

    Raises:
        ManifestError: Its SHA-256 differs from `identity`, or this version of tokenizers cannot load it.
    """
    digest = hashlib.sha256(file.content).hexdigest()
    if digest != identity.sha256:
        raise ManifestError(
            f"{file.name} is not the model's tokenizer: its SHA-256 is {digest}, the manifest has {identity.sha256}; "
            "pass the tokenizer.json next to the model's config.pbtxt as tokenizer="
        )
    try:
        with panics_as_errors():
            tokenizer = Tokenizer.from_buffer(file.content)
    except Exception as exc:  # tokenizers raises plain Exception
        raise ManifestError(
            f"{file.name}: this version of tokenizers cannot load it ({exc}); upgrade tokenizers"
        ) from exc
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
