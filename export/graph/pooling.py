"""Last-token pooling: which token's state stands for a row.

    [T, hidden] of all tokens ─ gather each row's last token ─→ [G, hidden]

Padding was removed before, so the last token of a row is its last real one: the end token if the tokenizer appends one.
"""

from __future__ import annotations

import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .tokens import PackedTokens


def pool_last_token(g: GraphBuilder, packed: PackedTokens, values: ir.Value, name: str) -> ir.Value:
    """Return each row's last token [G, ·] from the values of all tokens [T, ·]."""
    return g.op("Gather", values, packed.last, axis=0, name=name)
