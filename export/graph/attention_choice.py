"""The attention of a graph: over groups of texts on a CPU, over rows or pages of the whole batch on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from ..architectures import LayerTensors
from ..formats.operands import Operand, float_rows
from ..onnx_builder import GraphBuilder
from ..options import CudaAttention
from . import attention as on_groups
from . import attention_on_pages as on_pages
from . import attention_on_rows as on_rows
from .cuda_profile import CudaProfile
from .decoder import DecoderParts
from .groups import TextGroup
from .pages import lay_out_pages
from .row_grid import lay_out_rows
from .tokens import PackedTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attention as two functions of the normed stream [T, hidden] and the layer's tensor names."""

    attend: Callable[[Operand, LayerTensors], ir.Value]
    """Output of every token: [T, hidden]."""
    attend_last: Callable[[Operand, LayerTensors], ir.Value]
    """Output of each row's last token: [G, hidden]."""


def attention_of_group(g: GraphBuilder, parts: DecoderParts, group: TextGroup) -> Attention:
    """Return CPU attention over `group`. Adds the index computations that all layers share to the graph."""
    with g.scope("groups"):
        layout = on_groups.lay_out_heads(g, parts, group)
    return Attention(
        attend=lambda normed, layer: on_groups.attend(g, parts, layout, normed, layer),
        attend_last=lambda normed, layer: on_groups.attend_last(g, parts, layout, normed, layer),
    )


def attention_of_batch(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, max_tokens: int) -> Attention:
    """Return GPU attention over the batch. Adds the index computations that all layers share to the graph."""
    profile = parts.cuda or CudaProfile()
    if profile.attention_for(parts.format.activations) is CudaAttention.PAGES:
        with g.scope("rows"):
            pages = lay_out_pages(g, parts, packed, max_tokens)
        return Attention(
            attend=lambda normed, layer: on_pages.attend(g, parts, pages, float_rows(g, normed), layer),
            attend_last=lambda normed, layer: on_pages.attend_last(
                g, parts, packed, pages, float_rows(g, normed), layer
            ),
        )
    with g.scope("rows"):
        grid = lay_out_rows(g, packed)
    return Attention(
        attend=lambda normed, layer: on_rows.attend(g, parts, grid, float_rows(g, normed), layer),
        attend_last=lambda normed, layer: on_rows.attend_last(g, parts, grid, float_rows(g, normed), layer),
    )
