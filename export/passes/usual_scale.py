"""Whether weights have the usual scale, so that they are exported in fp16 without measured activations.

Their rescale is a fixed one: it gives the residual stream and the MLP 2^5 times the range of fp16, and the weights that
it makes smaller are still so large that rounding to fp16's subnormals does not matter.
"""

from __future__ import annotations

from ..architectures import EMBEDDINGS, DecoderConfig
from ..sources.weights import LazyTensor, Weights
from .rescale import Rescale

UNMEASURED_RESCALE = Rescale(residual=5, intermediate=5)
"""Rescale of weights of the usual scale."""
_SAMPLED_ROWS = 16
_USUAL_MATRICES = 2.0**-5, 2.0**3
"""Limits of the largest absolute value of some rows."""
_USUAL_VECTORS = 2.0**-6, 2.0**9
"""Limits of the largest absolute value of a gain or a bias."""


def has_usual_scale(weights: Weights, config: DecoderConfig) -> bool:
    """Return whether every matrix, from a sample of its rows, and every gain and bias is of the usual scale.

    A vector of zeros is usual, a matrix whose sampled rows are zeros is not.
    """
    if not _is_usual(weights[EMBEDDINGS]):
        return False
    return all(_is_usual(weights[name]) for name in config.tensor_shapes() if name.startswith("layers."))


def _is_usual(tensor: LazyTensor) -> bool:
    rows = tensor.shape[0]
    if len(tensor.shape) == 1:
        largest = float(tensor.fp32().abs().max())
        return largest == 0 or _USUAL_VECTORS[0] <= largest <= _USUAL_VECTORS[1]
    sample = tensor.fp32_rows(range(0, rows, -(-rows // _SAMPLED_ROWS)))
    return _USUAL_MATRICES[0] <= float(sample.abs().max()) <= _USUAL_MATRICES[1]
