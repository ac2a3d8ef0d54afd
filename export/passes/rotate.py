"""Rotation of the residual stream, which removes outlier channels (QuaRot, arXiv:2404.00456).

RMSNorm with gain 1 commutes with an orthogonal Q: norm(x · Q) = norm(x) · Q. With each gain folded into the products
that read the norm, the stream becomes x · Q:

    embedding E · Q      q, k, v, gate, up  W · diag(gain) · Q      o, down  Qᵀ · W      gains 1

The output of the final norm is rotated back by diag(gain) · Q, once for each row; heads of the checkpoint have that
folded in. Biases of q, k and v are added after their products and do not change.
"""

from __future__ import annotations

import torch

from ..architectures import EMBEDDINGS, FINAL_NORM, HEADS, DecoderConfig
from ..sources.weights import LazyTensor, Weights
from .rotation import Rotation

UNROTATE = "norm.unrotate.weight"
"""[hidden, hidden], a linear layer's [out, in]: from the normed rotated stream to the final hidden state."""


def rotate_stream(weights: Weights, config: DecoderConfig, rotation: Rotation) -> dict[str, LazyTensor]:
    """Return weights that compute the same function on the stream x · Q, with gains of 1, and with UNROTATE."""
    rotated = dict(weights)

    def read_stream(name: str, gain: str) -> LazyTensor:
        return weights[name].changed(lambda values: rotation.rotate_rows(values * weights[gain].fp32()), by_rows=True)

    rotated[EMBEDDINGS] = weights[EMBEDDINGS].changed(rotation.rotate_rows, by_rows=True)
    for index in range(config.layers):
        layer = config.architecture.layer(index)
        for gain, readers in ((layer.attention_norm, layer.qkv), (layer.mlp_norm, layer.gate_up)):
            rotated |= {name: read_stream(name, gain) for name in readers}
            rotated[gain] = weights[gain].changed(torch.ones_like)
        for name in (layer.output, layer.down):
            rotated[name] = weights[name].changed(rotation.rotate_columns)
    for name in HEADS:
        if name in weights:
            rotated[name] = read_stream(name, FINAL_NORM)
    final_gain = weights[FINAL_NORM]
    rotated[FINAL_NORM] = final_gain.changed(torch.ones_like)
    rotated[UNROTATE] = LazyTensor(
        (rotation.size, rotation.size), torch.float32, lambda: rotation.rotate_rows(torch.diag(final_gain.fp32()))
    )
    return rotated
