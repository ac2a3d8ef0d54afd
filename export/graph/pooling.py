"""Last-token pooling.

    [T, hidden] of all tokens ─ gather each row's last token ─→ [G, hidden]

Padding is already removed, so the last token is a real one: the end token, if the tokenizer appends one.
"""

from __future__ import annotations

import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .tokens import PackedTokens


def pool_last_token(g: GraphBuilder, packed: PackedTokens, values: ir.Value, name: str) -> ir.Value:
    """Return each row's last token [G, ·] from the values of all tokens [T, ·]."""
    return g.op("Gather", values, packed.last_tokens, axis=0, name=name)


def pool_last_cell(g: GraphBuilder, packed: PackedTokens, values: ir.Value, name: str) -> ir.Value:
    """Return each row's last token [G, ·] from the values of all cells [G, W, ·]."""
    return pool_last_token(g, packed, g.op("Flatten", values, axis=-1), name)
