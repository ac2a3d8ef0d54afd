"""Prompted texts to token rows, by the very tokenizer that the contract names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .contract import Contract
from .errors import BadInput, ContractMismatch
from .texts import name_text


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTokenizer:
    """The tokenizer with the contract's end token and length limit."""

    tokenizer: Tokenizer
    end_token_id: int | None
    max_tokens: int

    def tokenize(self, texts: Sequence[str], prompted: Sequence[str], *, truncate: bool) -> TokenRows:
        """Rows of `prompted`, each with its end token exactly once and at most `max_tokens` long.

        An end token that a text itself ends with is not doubled. A longer row keeps its first ids and its
        end token, as transformers' `truncation=True, max_length=max_tokens` does. `texts` are the caller's,
        for messages. Raises BadInput for a row without a token, and for a long one where not `truncate`.
        """
        encodings = self.tokenizer.encode_batch_fast(list(prompted))
        rows = [encoding.ids for encoding in encodings]
        for index, row in enumerate(rows):
            length = self._close_row(row)
            if length > self.max_tokens and not truncate:
                raise BadInput(
                    f"{name_text(texts, index)} has {length} tokens with prompt and end token, "
                    f"the model takes {self.max_tokens}: shorten it or let it be cut with truncate=True"
                )
            if not row:
                raise BadInput(f"{name_text(texts, index)} has no token, and the model appends no end token")
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        ids = np.fromiter(chain.from_iterable(rows), np.int64, count=int(starts[-1]))
        return TokenRows(ids, starts)

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


def load_tokenizer(file: Path, contract: Contract) -> RowTokenizer:
    """The tokenizer of `file` with the contract's limits; the file's own padding and truncation are off.

    Raises BadInput where the file cannot be read, ContractMismatch where its sha256 is not the contract's.
    """
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise BadInput(f"tokenizer: cannot read {file}: {exc.strerror or exc}") from exc
    digest = hashlib.sha256(content).hexdigest()
    if digest != contract.tokenizer.sha256:
        raise ContractMismatch(
            f"{file} is not the model's tokenizer: its sha256 is {digest}, the contract's "
            f"{contract.tokenizer.sha256}; pass tokenizer= the tokenizer.json beside the model's config.pbtxt"
        )
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as exc:  # tokenizers raises no narrower one
        raise ContractMismatch(
            f"{file}: this version of tokenizers cannot read it ({exc}); upgrade tokenizers"
        ) from exc
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return RowTokenizer(tokenizer=tokenizer, end_token_id=contract.end_token_id, max_tokens=contract.max_tokens)
