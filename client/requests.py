"""Token rows to requests: rows of like length together, right-padded, within the server's limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .manifest import PADDING_ID
from .tokenization import TokenRows

MAX_REQUEST_TOKENS = 16_384
"""Most tokens of one request, however large the server's batches may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """How much one request may hold."""

    rows: int
    tokens: int = MAX_REQUEST_TOKENS
    """Padding included; a single row is sent whatever its length."""


def limit_requests(max_batch_rows: int, max_rows: int | None, max_batch_tokens: int | None = None) -> RequestLimits:
    """Return the limits for requests to one server.

    Args:
        max_batch_rows: Most rows that the server takes.
        max_rows: Most rows that the caller wants in a request, or None.
        max_batch_tokens: Most tokens of one of the server's batches, or None where only rows are limited.

    Raises:
        InvalidInputError: `max_rows` is below 1.
    """
    tokens = min(MAX_REQUEST_TOKENS, max_batch_tokens or MAX_REQUEST_TOKENS)
    if max_rows is None:
        return RequestLimits(rows=max_batch_rows, tokens=tokens)
    if max_rows < 1:
        raise InvalidInputError(f"max_rows_per_request is {max_rows}, it must be at least 1")
    return RequestLimits(rows=min(max_rows, max_batch_rows), tokens=tokens)


@dataclass(frozen=True, slots=True, eq=False)
class RowRequest:
    """Some rows on their way to the server."""

    positions: NDArray[np.intp]
    """`[rows]`, where each row's text stands in the caller's list."""
    input_ids: NDArray[np.int64]
    """`[rows, width]`, padded on the right with PADDING_ID."""


def pack_requests(tokens: TokenRows, limits: RequestLimits) -> Iterator[RowRequest]:
    """Requests that hold every row once, longest rows first, packed as they are asked for."""
    lengths = tokens.lengths
    # like lengths share a request, so little padding travels; the longest take longest, so they start first
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        width = int(lengths[order[begin]])
        rows = min(limits.rows, max(1, limits.tokens // width))
        yield _pack(tokens, order[begin : begin + rows], width)
        begin += rows


def _pack(tokens: TokenRows, positions: NDArray[np.intp], width: int) -> RowRequest:
    input_ids = np.full((len(positions), width), PADDING_ID, np.int64)
    for padded, position in zip(input_ids, positions.tolist(), strict=True):
        row = tokens.row(position)
        padded[: len(row)] = row
    return RowRequest(positions, input_ids)
