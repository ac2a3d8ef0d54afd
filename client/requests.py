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


def pack_requests(tokens: TokenRows, limits: Callable[[], RequestLimits]) -> Iterator[RowRequest]:
    """Yield requests that together contain every row once, longest rows first.

    A request is packed when it is about to be sent, within what `limits` returns at that time.
    """
    lengths = tokens.lengths
    # similar lengths share a request, so little padding is sent; the longest rows start first, as they take longest
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        width, allowed = int(lengths[order[start]]), limits()
        rows = min(allowed.rows, max(1, allowed.tokens // width))
        yield _pack(tokens, order[start : start + rows], width)
        start += rows


def _pack(tokens: TokenRows, positions: NDArray[np.intp], width: int) -> RowRequest:
    input_ids = np.full((len(positions), width), PADDING_ID, np.int64)
    for padded, position in zip(input_ids, positions.tolist(), strict=True):
        row = tokens.row(position)
        padded[: len(row)] = row
    return RowRequest(positions, input_ids)
