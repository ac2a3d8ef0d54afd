"""Rows that the server lost, which are sent again.

A request without token ids makes Triton's C++ backends lose the ids of the requests after it in the same batch. The
graph marks the results of those rows with LOST_ROW_BITS; the rows themselves are valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ServerError
from .manifest import LOST_ROW_BITS
from .messages import read_output

MAX_RESENDS = 5
"""How often a lost row is sent again before the call fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedOutput:
    """Name and width of a model's FP32 output `[rows, width]`."""

    name: str
    width: int

    def read(self, response: Any, rows: int) -> NDArray[np.float32]:
        """Return this output `[rows, width]` of a ModelInferResponse; raise ManifestError if it does not have it."""
        return read_output(response, self.name, (rows, self.width))

    def find_lost(self, output: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return bool `[rows]`, True for lost rows of an output `[rows, width]`."""
        lost: NDArray[np.bool_] = output[:, 0].view(np.uint32) == LOST_ROW_BITS
        return lost


def lost_rows_error(rows: int) -> ServerError:
    """Return the error for rows that were still lost after MAX_RESENDS."""
    return ServerError(
        f"the server lost {rows} rows {1 + MAX_RESENDS} times, because requests without token ids shared their "
        "batches: find the client that sends them, or export the model with a token budget, which keeps such requests "
        "apart"
    )
