"""Packing of token rows into requests: similar lengths together, right-padded, within the server's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .manifest import PADDING_ID
from .tokenization import TokenRows

MAX_REQUEST_TOKENS = 16_384
"""Largest number of tokens in a request, padding included, even if the server's batches may be larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Size limits of one request."""

    rows: int
    tokens: int = MAX_REQUEST_TOKENS
    """Padding included; a request with a single row may exceed it."""


def limit_requests(max_batch_rows: int, max_rows: int | None, max_batch_tokens: int | None = None) -> RequestLimits:
    """Combine the limits of the server and the caller.

    Args:
        max_batch_rows: Largest number of rows that the server accepts.
        max_rows: The caller's limit on the rows of a request, or None.
        max_batch_tokens: Token budget of the server's batches, or None if only rows are limited.

    Raises:
        InvalidInputError: `max_rows` is below 1.
    """
    tokens = min(MAX_REQUEST_TOKENS, max_batch_tokens or MAX_REQUEST_TOKENS)
    if max_rows is None:
        return RequestLimits(rows=max_batch_rows, tokens=tokens)
    if max_rows < 1:
        raise InvalidInputError(f"max_rows_per_request is {max_rows}; it must be at least 1")
    return RequestLimits(rows=min(max_rows, max_batch_rows), tokens=tokens)


@dataclass(frozen=True, slots=True, eq=False)
class RowRequest:
    """The rows of one request."""

    positions: NDArray[np.intp]
    """`[rows]`, index of each row's text in the caller's list."""
    input_ids: NDArray[np.int64]
    """`[rows, width]`, padded on the right with PADDING_ID."""

    @property
    def tokens(self) -> int:
        """Number of tokens, without padding."""
        return int(np.count_nonzero(self.input_ids >= 0))

    def halves(self) -> list[RowRequest]:
        """Return two requests with the first and the last half of the rows."""
        middle = len(self.positions) // 2
        return [
            RowRequest(self.positions[:middle], self.input_ids[:middle]),
            RowRequest(self.positions[middle:], self.input_ids[middle:]),
        ]


def pack_requests(
    tokens: TokenRows, positions: NDArray[np.intp], limits: Callable[[], RequestLimits]
) -> Iterator[RowRequest]:
    """Yield requests that together contain every row once, longest rows first.

    A request is packed when it is about to be sent, within what `limits` returns at that time.

    Args:
        tokens: The rows.
        positions: `[rows]`, index of each row's text in the caller's list.
        limits: Returns the limits of the next request.
    """
    lengths = tokens.lengths
    # similar lengths share a request, so little padding is sent; the longest rows start first, as they take longest
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        width, allowed = int(lengths[order[start]]), limits()
        rows = min(allowed.rows, max(1, allowed.tokens // width))
        packed = order[start : start + rows]
        yield RowRequest(positions[packed], _pad(tokens, packed, width))
        start += rows


def _pad(tokens: TokenRows, rows: NDArray[np.intp], width: int) -> NDArray[np.int64]:
    input_ids = np.full((len(rows), width), PADDING_ID, np.int64)
    for padded, index in zip(input_ids, rows.tolist(), strict=True):
        row = tokens.row(index)
        padded[: len(row)] = row
    return input_ids
