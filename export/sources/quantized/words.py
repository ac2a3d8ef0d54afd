"""Codes of a few bits, packed into 32-bit words."""

from __future__ import annotations

import torch

WORD_BITS = 32


def unpack_words(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the codes of each of `words` [...], the first from its lowest bits: [..., WORD_BITS / bits]."""
    shifts = torch.arange(0, WORD_BITS, bits, dtype=words.dtype)
    return (words.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)
