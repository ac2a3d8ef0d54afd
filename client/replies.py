"""Assembly of the server's replies into one array in the caller's order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .manifest import EmbeddingManifest, RerankManifest
from .messages import read_output
from .requests import RowRequest
from .texts import Texts
from .vectors import truncate_vectors


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


def collect_embeddings(
    replies: Iterable[RowReply], texts: Texts, manifest: EmbeddingManifest, dim: int, errors: OnNaN
) -> NDArray[np.float32]:
    """Collect unit vectors from replies in any order; a later reply to a row replaces an earlier one.

    Returns:
        float32 `[texts, dim]`, in the order of `texts`; with `errors="nan"`, rows that the server cannot embed are NaN.

    Raises:
        InvalidInputError: A row is NaN, with `errors="raise"`. The message names the first such text, after all replies
            have arrived, so that it does not depend on their order.
        ManifestError: A reply has another shape or type.
    """
    embeddings = np.empty((len(texts), dim), np.float32)
    is_invalid = np.zeros(len(texts), np.bool_)
    for reply in replies:
        positions = reply.request.positions
        vectors = read_output(reply.response, manifest.task.output, (len(positions), manifest.dimension))
        # the sum of a row is finite only if every component is
        is_invalid[positions] = ~np.isfinite(vectors.sum(axis=1))
        embeddings[positions] = truncate_vectors(vectors, dim)
    if errors == "raise":
        _raise_for_nan(np.flatnonzero(is_invalid).tolist(), texts, "embedding")
    embeddings[is_invalid] = np.nan
    return embeddings


def collect_scores(
    replies: Iterable[RowReply], texts: Texts, manifest: RerankManifest, errors: OnNaN
) -> NDArray[np.float32]:
    """Collect float32 `[texts]` scores in 0…1, in the order of `texts`; raises as `collect_embeddings` does."""
    scores = np.empty(len(texts), np.float32)
    for reply in replies:
        positions = reply.request.positions
        scores[positions] = read_output(reply.response, manifest.task.output, (len(positions), 1))[:, 0]
    is_invalid = ~np.isfinite(scores)
    if errors == "raise":
        _raise_for_nan(np.flatnonzero(is_invalid).tolist(), texts, "score")
    scores[is_invalid] = np.nan
    return scores


def _raise_for_nan(invalid: list[int], texts: Texts, result: str) -> None:
    if invalid:
        others = f" (and {len(invalid) - 1} more)" if len(invalid) > 1 else ""
        raise InvalidInputError(
            f"{texts.describe(min(invalid))}{others} has no {result}: the server returned NaN, which means token ids "
            "outside the vocabulary or an overflow inside the model: export the model in a higher precision"
        )
