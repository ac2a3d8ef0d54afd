"""Resending of rows that the server lost.

A request without token ids makes Triton's C++ backends lose the ids of the requests after it in the same batch. The
graph marks the results of those rows with LOST_ROW_BITS; the rows themselves are valid.
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
"""How often a lost row is sent again before the call fails."""

Infer = Callable[[Iterable[RowRequest]], Generator[RowReply, None, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedOutput:
    """Name and width of a model's FP32 output `[rows, width]`."""

    name: str
    width: int

    def find_lost(self, reply: RowReply) -> NDArray[np.bool_]:
        """Return bool `[rows]`, True for lost rows; raise ManifestError if the reply does not have this output."""
        output = read_output(reply.response, self.name, (len(reply.request.positions), self.width))
        lost: NDArray[np.bool_] = output[:, 0].view(np.uint32) == LOST_ROW_BITS
        return lost


def infer_with_resends(
    infer: Infer, requests: Iterable[RowRequest], output: ExpectedOutput
) -> Generator[RowReply, None, None]:
    """Yield a reply to every request, followed by replies to the rows that were lost.

    Args:
        infer: Sends requests and yields their replies in any order.
        requests: Requests to send.
        output: Output tensor of the replies.

    Raises:
        ServerError: A row was still lost after MAX_RESENDS.
        ManifestError: A reply does not have `output`.
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
