"""Assembly of the server's replies into one array in the caller's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from .duplicates import Duplicates
from .errors import InvalidInputError
from .model_outputs import ModelOutput
from .partial_results import PartialResults
from .requests import RowRequest
from .texts import Texts


@dataclass(frozen=True, slots=True, eq=False)
class RowReply:
    """A request and its ModelInferResponse."""

    request: RowRequest
    response: Any


OnNaN = Literal["raise", "nan"]
"""What a NaN for one text does: the call raises InvalidInputError, or the text's result is NaN."""


def check_errors(errors: str) -> OnNaN:
    """Return `errors`; raise InvalidInputError unless it is "raise" or "nan"."""
    if errors not in get_args(OnNaN):
        raise InvalidInputError(f"errors is {errors!r}; it must be 'raise' or 'nan'")
    return cast(OnNaN, errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultKind:
    """What the rows of a reply become."""

    name: str
    """`embedding` or `score`, for messages."""
    output: ModelOutput
    shape: tuple[int, ...]
    """Shape of one text's result."""
    dtype: np.dtype[Any]
    """Type of the results."""
    convert: Callable[[NDArray[Any]], NDArray[Any]]
    """Returns the results `[rows, *shape]` of an output `[rows, width]`."""
    errors: OnNaN


class RowResults:
    """Results of a call's texts. Replies arrive in any order; a later reply to a row replaces an earlier one."""

    def __init__(self, texts: Texts, duplicates: Duplicates, kind: ResultKind) -> None:
        """Create results that have not arrived.

        Args:
            texts: The caller's texts.
            duplicates: Which of them are computed.
            kind: What the rows of a reply become.
        """
        self._texts = texts
        self._duplicates = duplicates
        self._kind = kind
        self._values = np.empty((len(texts), *kind.shape), kind.dtype)
        self._is_valid = np.zeros(len(texts), np.bool_)
        self._missing = len(duplicates.computed)
        self._has_arrived = np.zeros(len(texts), np.bool_)

    @property
    def is_complete(self) -> bool:
        """Whether a reply to every text has arrived, in which the server had not lost its row."""
        return not self._missing

    def add(self, reply: RowReply) -> None:
        """Add the results in a reply; raise ManifestError if it has another shape or type."""
        positions = reply.request.positions - self._texts.first
        rows = self._kind.output.read(reply.response, len(positions))
        self._is_valid[positions] = rows.is_valid
        self._values[positions] = self._kind.convert(rows.values)
        self._has_arrived[positions] = ~rows.is_lost
        self._missing -= len(positions) - int(rows.is_lost.sum())

    def partial(self) -> PartialResults:
        """Return the results that have arrived so far."""
        self._fill_duplicates()
        self._values[~self._is_valid] = self._missing_value
        return PartialResults(self._values, self._is_valid)

    def count_leading(self) -> int:
        """Return the number of texts before the first one without a result."""
        self._fill_duplicates()
        return int(np.logical_and.accumulate(self._has_arrived & self._is_valid).sum())

    def finish(self, count: int | None = None) -> NDArray[Any]:
        """Return the results of the first `count` texts, or of all, `[count, *shape]`.

        Raises:
            InvalidInputError: A result is NaN, with `errors="raise"`. The message names the first such text, and does
                not depend on the order of the replies.
        """
        self._fill_duplicates()
        values, is_valid = self._values[:count], self._is_valid[:count]
        invalid = np.flatnonzero(~is_valid).tolist()
        if invalid and self._kind.errors == "raise":
            raise self._nan_error(invalid)
        values[~is_valid] = self._missing_value
        return values

    @property
    def _missing_value(self) -> float:
        return np.nan if self._values.dtype.kind == "f" else 0

    def _fill_duplicates(self) -> None:
        for array in (self._values, self._is_valid, self._has_arrived):
            self._duplicates.fill(array)

    def _nan_error(self, invalid: list[int]) -> InvalidInputError:
        others = f" (and {len(invalid) - 1} more)" if len(invalid) > 1 else ""
        return InvalidInputError(
            f"{self._texts.describe(min(invalid))}{others} has no {self._kind.name}: the server returned NaN, which "
            "means token ids outside the vocabulary or an overflow inside the model: export the model in a higher "
            "precision"
        )
