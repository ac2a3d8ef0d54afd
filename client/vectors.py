"""Truncation of unit vectors to their first components, and normalization."""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .manifest import EmbeddingManifest


def check_dimension(manifest: EmbeddingManifest, dim: int | None) -> int:
    """Return the requested number of components, or all of them for None.

    Raises:
        InvalidInputError: The model does not offer `dim`.
    """
    if dim is None:
        return manifest.dimension
    try:
        requested = operator.index(dim)
    except TypeError as exc:
        raise InvalidInputError(f"dim is of type {type(dim).__name__}, expected int") from exc
    if not manifest.min_dimension <= requested <= manifest.dimension:
        raise InvalidInputError(
            f"dim is {requested}, but the model offers {manifest.min_dimension} to {manifest.dimension}"
        )
    return requested


def truncate_vectors(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Keep the first `dim` components of each row and renormalize (Matryoshka embeddings, arXiv 2205.13147).

    Args:
        vectors: float32 `[n, D]`.
        dim: Number of components to keep.

    Returns:
        float32 `[n, dim]`, rows of L2 norm 1; a row of zeros stays zero.
    """
    if dim == vectors.shape[1]:
        return vectors
    # a truncated vector no longer has length 1
    return normalize_rows(vectors[:, :dim])


def normalize_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return float32 `[n, dim]`, each row divided by its L2 norm; a row of zeros stays zero."""
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    unit: NDArray[np.float32] = vectors / np.maximum(norms, np.finfo(np.float32).tiny)[:, None]
    return unit
