"""Replies of the server to one array in the caller's order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contract import Contract
from .errors import BadInput
from .messages import read_output
from .requests import RowRequest
from .texts import name_text
from .vectors import cut_vectors


@dataclass(frozen=True, slots=True, eq=False)
class RowReply:
    """A request and the ModelInferResponse that answers it."""

    request: RowRequest
    response: Any


def collect_embeddings(
    replies: Iterable[RowReply], texts: Sequence[str], contract: Contract, dim: int
) -> NDArray[np.float32]:
    """FP32 `[texts, dim]` unit rows in the order of `texts`, from replies in any order.

    Raises BadInput that names the first text of a NaN row, once every reply is in, so that it is the same
    text each time; ContractMismatch for a reply of another shape or type.
    """
    embeddings = np.empty((len(texts), dim), np.float32)
    bad: list[int] = []
    for reply in replies:
        positions = reply.request.positions
        vectors = read_output(reply.response, contract.task.output, (len(positions), contract.dimension))
        # a sum is finite only where every component is
        bad += positions[~np.isfinite(vectors.sum(axis=1))].tolist()
        embeddings[positions] = cut_vectors(vectors, dim)
    if bad:
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise BadInput(
            f"{name_text(texts, min(bad))}{others} has no embedding: the server answered NaN for it, "
            "as it does for ids that the vocabulary lacks and for an overflow inside the model"
        )
    return embeddings
