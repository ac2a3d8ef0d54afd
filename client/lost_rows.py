"""Rows that the server lost are sent again.

A request without ids makes Triton's C++ backends lose the ids of requests behind it in the same batch. The graph marks
the answers to those rows, see LOST_ROW_BITS; nothing is wrong with the rows themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import ServerError
from .manifest import LOST_ROW_BITS
from .messages import read_output
from .replies import RowReply
from .requests import RowRequest

MAX_RESENDS = 5
"""Times that a row is sent again before the call fails."""

Infer = Callable[[Iterable[RowRequest]], Generator[RowReply, None, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedOutput:
    """The output of a model: `name` FP32 `[rows, width]`."""

    name: str
    width: int

    def find_lost(self, reply: RowReply) -> NDArray[np.bool_]:
        """Return BOOL `[rows]`: which rows of the reply are lost. Raises ManifestError for any other output."""
        answers = read_output(reply.response, self.name, (len(reply.request.positions), self.width))
        lost: NDArray[np.bool_] = answers[:, 0].view(np.uint32) == LOST_ROW_BITS
        return lost


def infer_with_resends(
    infer: Infer, requests: Iterable[RowRequest], output: ExpectedOutput
) -> Generator[RowReply, None, None]:
    """Yield a reply to every request, and later ones to the rows that earlier replies lost.

    Args:
        infer: Sends requests and yields their replies in any order.
        requests: What to send.
        output: Where to find the answers in a reply.

    Raises:
        ServerError: A row was lost every time.
    """
    for _ in range(1 + MAX_RESENDS):
        lost: list[RowRequest] = []
        with closing(infer(requests)) as replies:
            for reply in replies:
                rows = output.find_lost(reply)
                if rows.any():
                    lost.append(RowRequest(reply.request.positions[rows], reply.request.input_ids[rows]))
                yield reply
        if not lost:
            return
        requests = lost
    raise ServerError(
        f"the server lost {sum(len(request.positions) for request in lost)} rows {1 + MAX_RESENDS} times, because "
        "requests without token ids shared their batches: find the client that sends them, or export the model with a "
        "token budget, which keeps such requests apart"
    )
