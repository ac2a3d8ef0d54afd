"""Length of the longest text that the written model is compared on. It never depends on the machine or its load."""

from __future__ import annotations

from ...client.manifest import Verification
from ..architectures import DecoderConfig

_QUICK_FLOP = 2e12
"""Most FLOP of the reference for the longest text; a multiply-add is two."""
_QUICK_LEAST = 512
"""Tokens that are compared for any model: fewer than the other probe texts have together, which take longer."""


def longest_text(verify: Verification, config: DecoderConfig, max_tokens: int) -> int:
    """Return the tokens of the longest text.

    `max_tokens` for FULL and for models so small that it stays within _QUICK_FLOP. Otherwise the largest power of two
    within it, at least _QUICK_LEAST. Without verification, fp16 needs the activations of the texts of QUICK.
    """
    if verify is Verification.FULL or _flop(config, max_tokens) <= _QUICK_FLOP:
        return max_tokens
    tokens = _QUICK_LEAST
    while _flop(config, 2 * tokens) <= _QUICK_FLOP:
        tokens *= 2
    return min(tokens, max_tokens)


def _flop(config: DecoderConfig, tokens: int) -> int:
    """Return the FLOP of one text in transformers: products with weights, and attention of each token to all."""
    attention = 2 * config.layers * config.query_width * tokens
    return 2 * tokens * (config.multiply_adds + attention)
