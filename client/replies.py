"""Assembly of the server's replies into one array in the caller's order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError, ServerError
from .manifest import EmbeddingManifest, RerankManifest
from .messages import read_output
from .partial_results import PartialResults
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
        ServerError: Raised by `replies`; it gets the rows that arrived as `partial`.
    """
    embeddings = np.empty((len(texts), dim), np.float32)
    is_valid = np.zeros(len(texts), np.bool_)
    with _keep_partial(embeddings, is_valid):
        for reply in replies:
            positions = reply.request.positions
            vectors = read_output(reply.response, manifest.task.output, (len(positions), manifest.dimension))
            # the sum of a row is finite only if every component is
            is_valid[positions] = np.isfinite(vectors.sum(axis=1))
            embeddings[positions] = truncate_vectors(vectors, dim)
    return finish_results(embeddings, is_valid, texts, "embedding", errors)


def collect_scores(
    replies: Iterable[RowReply], texts: Texts, manifest: RerankManifest, errors: OnNaN
) -> NDArray[np.float32]:
    """Collect float32 `[texts]` scores in 0…1, in the order of `texts`; raises as `collect_embeddings` does."""
    scores = np.empty(len(texts), np.float32)
    is_valid = np.zeros(len(texts), np.bool_)
    with _keep_partial(scores, is_valid):
        for reply in replies:
            positions = reply.request.positions
            scores[positions] = read_output(reply.response, manifest.task.output, (len(positions), 1))[:, 0]
            is_valid[positions] = np.isfinite(scores[positions])
    return finish_results(scores, is_valid, texts, "score", errors)


@contextmanager
def _keep_partial(results: NDArray[np.float32], is_valid: NDArray[np.bool_]) -> Iterator[None]:
    """Attach what `results` holds so far to a ServerError that is raised inside the context."""
    try:
        yield
    except ServerError as exc:
        results[~is_valid] = np.nan
        exc.partial = PartialResults(results, is_valid)
        raise


def finish_results(
    results: NDArray[np.float32], is_valid: NDArray[np.bool_], texts: Texts, result: str, errors: OnNaN
) -> NDArray[np.float32]:
    """Return `results` with NaN where `is_valid` is False; with `errors="raise"`, raise InvalidInputError instead."""
    if errors == "raise":
        _raise_for_nan(np.flatnonzero(~is_valid).tolist(), texts, result)
    results[~is_valid] = np.nan
    return results


def _raise_for_nan(invalid: list[int], texts: Texts, result: str) -> None:
    if invalid:
        others = f" (and {len(invalid) - 1} more)" if len(invalid) > 1 else ""
        raise InvalidInputError(
            f"{texts.describe(min(invalid))}{others} has no {result}: the server returned NaN, which means token ids "
            "outside the vocabulary or an overflow inside the model: export the model in a higher precision"
        )
