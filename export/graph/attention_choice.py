"""The attention of a graph: over groups of texts on a CPU, over rows or pages of the whole batch on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from ..architectures import LayerTensors
from ..formats.operands import Operand, float_rows
from ..onnx_builder import GraphBuilder
from ..options import CudaAttention
from . import attention_on_pages as on_pages
from . import attention_on_rows as on_rows
from .attention import attend as attend_on_groups
from .control_flow import if_else
from .cuda_profile import CudaProfile
from .decoder import DecoderParts
from .groups import TextGroup
from .head_layout import lay_out_heads
from .last_attention import attend_last as attend_last_on_groups
from .pages import Pages, lay_out_pages
from .pooling import (
    RowProducts,
    RunningSums,
    lay_out_products,
    lay_out_running_sums,
    pool_last_cell,
    pool_last_token,
)
from .row_grid import RowColumns, RowGrid, batch_is_dense, lay_out_dense_rows, lay_out_rows, measure_rows
from .tokens import PackedTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attention as two functions of the normed stream [T, hidden] and the layer's tensor names."""

    attend: Callable[[Operand, LayerTensors], ir.Value]
    """Output of every token: [T, hidden]."""
    attend_last: Callable[[Operand, LayerTensors], ir.Value]
    """Output of each row's last token: [G, hidden]."""
    pool_last: Callable[[ir.Value, str], ir.Value]
    """Each row's last token [G, ·] from the values of all tokens, and a name for it."""
    sums: RunningSums | RowProducts | None
    """For the mean over each row's tokens; None if the head does not need it."""

    def pool_mean(self, g: GraphBuilder, values: ir.Value) -> ir.Value:
        """Return the mean over each row's tokens FP32 [G, ·] from the FP32 values of all tokens."""
        if self.sums is None:
            raise ValueError("the graph is not laid out for the mean")
        return self.sums.mean(g, values)


def attention_of_group(g: GraphBuilder, parts: DecoderParts, group: TextGroup) -> Attention:
    """Return CPU attention over `group`. Adds the index computations that all layers share to the graph."""
    with g.scope("groups"):
        layout = lay_out_heads(g, parts, group)
        sums = lay_out_running_sums(g, group) if parts.head.pooling.reads_every_token else None
    return Attention(
        attend=lambda normed, layer: attend_on_groups(g, parts, layout, normed, layer),
        attend_last=lambda normed, layer: attend_last_on_groups(g, parts, layout, normed, layer),
        pool_last=lambda values, name: pool_last_token(g, group.packed, values, name),
        sums=sums,
    )


def decode_batch(
    g: GraphBuilder,
    parts: DecoderParts,
    packed: PackedTokens,
    max_tokens: int,
    decode: Callable[[GraphBuilder, PackedTokens, Attention], ir.Value],
) -> ir.Value:
    """Return the outputs [G, ·] of `decode` on a GPU, with the attention that suits the batch."""
    profile = parts.cuda or CudaProfile()
    with g.scope("rows"):
        rows = measure_rows(g, packed)

    def decode_dense(b: GraphBuilder) -> ir.Value:
        with b.scope("rows"):
            cells, grid = lay_out_dense_rows(b, packed, rows)
            sums = _sums_of_rows(b, parts, cells, rows, grid)
        return decode(b, cells, _attention_on_rows(b, parts, cells, grid, pool_last_cell, sums))

    def decode_packed(b: GraphBuilder) -> ir.Value:
        if profile.attention_for(parts.format.activations) is CudaAttention.PAGES:
            with b.scope("rows"):
                pages = lay_out_pages(b, parts, packed, rows, max_tokens)
            return decode(b, packed, _attention_on_pages(b, parts, packed, pages))
        with b.scope("rows"):
            grid = lay_out_rows(b, parts, packed, rows)
            sums = _sums_of_rows(b, parts, packed, rows, grid)
        return decode(b, packed, _attention_on_rows(b, parts, packed, grid, pool_last_token, sums))

    if not profile.dense_batches:
        return decode_packed(g)
    with g.scope("rows"):
        is_dense = batch_is_dense(g, packed, rows)
    return if_else(g, "rows.layout", is_dense, decode_dense, decode_packed)


def _sums_of_rows(
    g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, rows: RowColumns, grid: RowGrid
) -> RowProducts | None:
    if not parts.head.pooling.reads_every_token:
        return None
    return lay_out_products(g, packed.lengths, rows.columns, None if grid.moves is None else grid.moves.token_of_cell)


def _attention_on_rows(
    g: GraphBuilder,
    parts: DecoderParts,
    packed: PackedTokens,
    grid: RowGrid,
    pool_last: Callable[[GraphBuilder, PackedTokens, ir.Value, str], ir.Value],
    sums: RowProducts | None,
) -> Attention:
    return Attention(
        attend=lambda normed, layer: on_rows.attend(g, parts, grid, float_rows(g, normed), layer),
        attend_last=lambda normed, layer: on_rows.attend_last(g, parts, grid, float_rows(g, normed), layer),
        pool_last=lambda values, name: pool_last(g, packed, values, name),
        sums=sums,
    )


def _attention_on_pages(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, pages: Pages) -> Attention:
    return Attention(
        attend=lambda normed, layer: on_pages.attend(g, parts, pages, float_rows(g, normed), layer),
        attend_last=lambda normed, layer: on_pages.attend_last(g, parts, packed, pages, float_rows(g, normed), layer),
        pool_last=lambda values, name: pool_last_token(g, packed, values, name),
        sums=None,
    )
