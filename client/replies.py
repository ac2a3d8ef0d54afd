"""Replies of the server to one array in the caller's order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .manifest import EmbeddingManifest, RerankManifest
from .messages import read_output
from .requests import RowRequest
from .texts import Texts
from .vectors import cut_vectors


@dataclass(frozen=True, slots=True, eq=False)
class RowReply:
    """A request and the ModelInferResponse that answers it."""

    request: RowRequest
    response: Any


def collect_embeddings(
    replies: Iterable[RowReply], texts: Texts, manifest: EmbeddingManifest, dim: int
) -> NDArray[np.float32]:
    """FP32 `[texts, dim]` unit rows in the order of `texts`, from replies in any order.

    A later reply to a row replaces an earlier one. Raises InvalidInputError that names the first text of a NaN row,
    once every reply is in, so that it is the same text each time; ManifestError for a reply of another shape or type.
    """
    embeddings = np.empty((len(texts), dim), np.float32)
    is_bad = np.zeros(len(texts), np.bool_)
    for reply in replies:
        positions = reply.request.positions
        vectors = read_output(reply.response, manifest.task.output, (len(positions), manifest.dimension))
        # a sum is finite only where every component is
        is_bad[positions] = ~np.isfinite(vectors.sum(axis=1))
        embeddings[positions] = cut_vectors(vectors, dim)
    _refuse_nan(np.flatnonzero(is_bad).tolist(), texts, "embedding")
    return embeddings


def collect_scores(replies: Iterable[RowReply], texts: Texts, manifest: RerankManifest) -> NDArray[np.float32]:
    """FP32 `[texts]` scores in 0…1 in the order of `texts`; errors as `collect_embeddings`."""
    scores = np.empty(len(texts), np.float32)
    for reply in replies:
        positions = reply.request.positions
        scores[positions] = read_output(reply.response, manifest.task.output, (len(positions), 1))[:, 0]
    _refuse_nan(np.flatnonzero(~np.isfinite(scores)).tolist(), texts, "score")
    return scores


def _refuse_nan(bad: list[int], texts: Texts, answer: str) -> None:
    if bad:
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise InvalidInputError(
            f"{texts.name(min(bad))}{others} has no {answer}: the server answered NaN for it, "
            "as it does for ids that the vocabulary lacks and for an overflow inside the model"
        )
