"""Unit vectors cut to their first components."""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .manifest import EmbeddingManifest


def check_dimension(manifest: EmbeddingManifest, dim: int | None) -> int:
    """Number of components asked for; `None` is all of them.

    Raises InvalidInputError where the model does not offer it.
    """
    if dim is None:
        return manifest.dimension
    try:
        wanted = operator.index(dim)
    except TypeError as exc:
        raise InvalidInputError(f"dim is of type {type(dim).__name__}, expected int") from exc
    if not manifest.min_dimension <= wanted <= manifest.dimension:
        raise InvalidInputError(f"dim is {wanted}, the model offers {manifest.min_dimension} to {manifest.dimension}")
    return wanted


def cut_vectors(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """FP32 `[n, dim]`: the first `dim` components of `[n, D]`, of L2 norm 1 again.

    Matryoshka representations (arXiv 2205.13147) allow it. A row of zeros stays zero.
    """
    if dim == vectors.shape[1]:
        return vectors
    # a cut vector is no longer of length 1
    cut = vectors[:, :dim]
    norms = np.sqrt(np.einsum("nd,nd->n", cut, cut))
    unit: NDArray[np.float32] = cut / np.maximum(norms, np.finfo(np.float32).tiny)[:, None]
    return unit
