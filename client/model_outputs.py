"""The output tensors that a client requests, and which of their rows have a result.

A request without token ids makes Triton's C++ backends lose the ids of the requests after it in the same batch. The
graph marks the results of those rows; the rows themselves are valid, and are sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import ServerError
from .manifest import LOST_ROW_BITS, ROW_STATUS, CompactOutput, OutputType, RowStatus
from .messages import read_output

MAX_RESENDS = 5
"""How often a lost row is sent again before the call fails."""

_FP32 = np.dtype("<f4")
_INT32 = np.dtype("<i4")
_STORED: dict[OutputType, np.dtype[Any]] = {
    OutputType.FLOAT32: _FP32,
    OutputType.FLOAT16: np.dtype("<f2"),
    OutputType.UBINARY: np.dtype("u1"),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowOutputs:
    """The rows of one reply."""

    values: NDArray[Any]
    """`[rows, width]`"""
    is_valid: NDArray[np.bool_]
    """`[rows]`, False for rows without a result."""
    is_lost: NDArray[np.bool_]
    """`[rows]`, True for rows to send again."""


class ModelOutput(Protocol):
    """What a call requests of the model."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the output tensors."""

    def read(self, response: Any, rows: int) -> RowOutputs:
        """Read a ModelInferResponse; raise ManifestError if it does not have these outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatOutput:
    """An FP32 output `[rows, width]`, in which rows without a result are NaN, and lost rows have LOST_ROW_BITS."""

    name: str
    width: int

    @property
    def names(self) -> tuple[str, ...]:
        """Name of the output."""
        return (self.name,)

    def read(self, response: Any, rows: int) -> RowOutputs:
        """Read a ModelInferResponse; raise ManifestError if it does not have this output."""
        values = read_output(response, self.name, (rows, self.width), _FP32)
        # the sum of a row is finite only if every component is
        is_valid = np.isfinite(values.sum(axis=1))
        return RowOutputs(values=values, is_valid=is_valid, is_lost=values[:, 0].view(np.uint32) == LOST_ROW_BITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOutput:
    """A compact output `[rows, width]`, with ROW_STATUS."""

    output: CompactOutput

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the output and of the status."""
        return (self.output.name, ROW_STATUS)

    def read(self, response: Any, rows: int) -> RowOutputs:
        """Read a ModelInferResponse; raise ManifestError if it does not have these outputs."""
        shape = (rows, self.output.width)
        values = read_output(response, self.output.name, shape, _STORED[self.output.dtype])
        status = read_output(response, ROW_STATUS, (rows, 1), _INT32)[:, 0]
        return RowOutputs(values=values, is_valid=status == RowStatus.VALID, is_lost=status == RowStatus.LOST)


def lost_rows_error(rows: int) -> ServerError:
    """Return the error for rows that were still lost after MAX_RESENDS."""
    return ServerError(
        f"the server lost {rows} rows {1 + MAX_RESENDS} times, because requests without token ids shared their "
        "batches: find the client that sends them, or export the model with a token budget, which keeps such requests "
        "apart"
    )
