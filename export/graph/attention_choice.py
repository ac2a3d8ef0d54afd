"""Which attention a graph gets: a loop over texts on a CPU, rows or pages on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from ..options import CudaAttention
from . import attention as loop
from . import attention_on_pages as on_pages
from . import attention_on_rows as on_rows
from .builder import GraphBuilder
from .decoder import DecoderParts
from .pages import lay_out_pages
from .row_grid import lay_out_rows
from .tokens import PackedTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Both take the normed stream [T, hidden] and the layer's name."""

    attend: Callable[[ir.Value, str], ir.Value]
    """Every token's output: [T, hidden]."""
    attend_last: Callable[[ir.Value, str], ir.Value]
    """Each row's last token's output: [G, hidden]."""


def choose_attention(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, max_tokens: int) -> Attention:
    """The attention for `parts`; what it needs once per batch is added to the graph here."""
    if parts.cuda is None:
        return Attention(
            attend=lambda normed, layer: loop.attend(g, parts, packed, normed, layer),
            attend_last=lambda normed, layer: loop.attend_last(g, parts, packed, normed, layer),
        )
    # PagedAttention has no fp32
    if parts.cuda.attention is CudaAttention.PAGES and parts.form.dtype != ir.DataType.FLOAT:
        with g.scope("rows"):
            pages = lay_out_pages(g, parts, packed, max_tokens)
        return Attention(
            attend=lambda normed, layer: on_pages.attend(g, parts, pages, normed, layer),
            attend_last=lambda normed, layer: on_pages.attend_last(g, parts, packed, pages, normed, layer),
        )
    with g.scope("rows"):
        grid = lay_out_rows(g, packed)
    return Attention(
        attend=lambda normed, layer: on_rows.attend(g, parts, grid, normed, layer),
        attend_last=lambda normed, layer: on_rows.attend_last(g, parts, grid, normed, layer),
    )
