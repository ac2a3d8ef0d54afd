"""Matrix products in floats or in 8 bits; which of the two is decided here, by the product's path.

rows [·, in] ─ / scale [·, 1] ─ round ─→ codes u8, 128 is zero
                                           └─ times weight codes s8 [in, out] · scale [out] ─→ rows [·, out]

What comes out of an 8-bit product is still to be multiplied with the scale of its rows. A scale belongs to one
token, or is the same for every token there can be, so no answer depends on a neighbour; sums are whole numbers, so
none depends on their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ..sources.weights import LazyTensor, Weights
from .builder import MICROSOFT, GraphBuilder
from .weight_blocks import multiply_blocks, round_up

UINT8 = ir.DataType.UINT8
INT8 = ir.DataType.INT8
FP32 = ir.DataType.FLOAT
LARGEST_CODE = 127
"""Codes run from -127 to 127, the same on either side of zero."""
ZERO_CODE = 128
"""What stands for zero in activations: u8 times s8 is the kernel that CPUs have."""
_SMALLEST_PEAK = 1e-30
"""Keeps a row of zeros from being divided by zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFormat:
    """How the weights of products are stored."""

    weights: Weights
    dtype: ir.DataType
    """Of the float weights and of activations."""
    quantized: bool = False
    blocks: bool = False
    """Weights in 8-bit blocks under float activations."""
    fp32_layers: frozenset[str] = frozenset()
    """Paths of products that stay in floats all the same, `layers.2.mlp.down` for one."""
    norm_output_scale: float | None = None
    """What one step of the codes of normed rows is worth; None where every row has a scale of its own."""

    def is_quantized(self, path: str) -> bool:
        """Whether the product at `path` is computed in 8 bits."""
        return self.quantized and path not in self.fp32_layers

    def is_in_blocks(self, path: str) -> bool:
        """Whether the weights of `path` are 8-bit blocks."""
        return self.blocks and path not in self.fp32_layers


@dataclass(frozen=True, slots=True)
class ScaledRows:
    """Rows [·, n] that mean `values` times `scale` [·, 1]; a scale of None is one."""

    values: ir.Value
    scale: ir.Value | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Rows [·, n] that mean (`values` - ZERO_CODE) times `step` times `scale`."""

    values: ir.Value
    """UINT8 [·, n]"""
    step: float = 1.0
    """Of all rows."""
    scale: ir.Value | None = None
    """FP32 [·, 1], of each row; None is one."""


@dataclass(frozen=True, slots=True)
class Operand:
    """What products are taken of: rows in floats, and as codes where an 8-bit product asks for them."""

    rows: ScaledRows | None
    """None where only 8-bit products read them."""
    codes: Codes | None
    """None where none does."""


def multiply_out(g: GraphBuilder, rows: ScaledRows) -> ir.Value:
    """The float rows that `rows` mean."""
    return rows.values if rows.scale is None else g.op("Mul", rows.values, rows.scale, name="scaled")


def float_rows(g: GraphBuilder, operand: Operand) -> ir.Value:
    """The float rows [·, n] of `operand`; ValueError where it has codes alone."""
    if operand.rows is None:
        raise ValueError(f"the operand was prepared for 8-bit products only, below {g.path('')}")
    return multiply_out(g, operand.rows)


def prepare_operand(
    g: GraphBuilder, form: ProductFormat, rows: ScaledRows, width: int, products: Sequence[str]
) -> Operand:
    """`rows` [·, width] as the named `products` of this scope take them, quantised once for all of them."""
    if not any(form.is_quantized(g.path(product)) for product in products):
        return Operand(rows, None)
    values = rows.values
    axis = g.constant([1])
    lowest = g.op("Neg", g.op("ReduceMin", values, axis, keepdims=1))
    highest = g.op("ReduceMax", values, axis, keepdims=1)
    peak = g.op("Max", highest, lowest, g.scalar(_SMALLEST_PEAK, FP32), name="peak")
    scale = g.op("Mul", peak, g.scalar(1 / LARGEST_CODE, FP32), name="scale")
    codes = g.op("QuantizeLinear", values, scale, _zeros(g, scale), axis=1, block_size=width, name="codes")
    if rows.scale is not None:
        scale = g.op("Mul", scale, rows.scale, name="scale")
    return Operand(rows, Codes(values=codes, scale=scale))


def round_normed(g: GraphBuilder, rows: ir.Value, step: float) -> Codes:
    """`rows` [·, n] out of a norm, in steps of `step`."""
    codes = g.op("QuantizeLinear", rows, g.scalar(step, FP32), g.constant(ZERO_CODE, np.uint8), name="codes")
    return Codes(values=codes, step=step)


def norm_and_round(g: GraphBuilder, rows: ir.Value, width: int, eps: float, step: float) -> Codes:
    """`rows` [·, width] behind RMSNorm without a gain, in steps of `step`: one division does both."""
    squares = g.op("ReduceSumSquare", rows, g.constant([1]), keepdims=1, name="squares")
    length = g.op("Sqrt", g.op("Add", squares, g.scalar(width * eps, FP32)), name="length")
    scale = g.op("Mul", length, g.scalar(step / math.sqrt(width), FP32), name="scale")
    codes = g.op("QuantizeLinear", rows, scale, _zeros(g, scale), axis=1, block_size=width, name="codes")
    return Codes(values=codes, step=step)


def take_rows(g: GraphBuilder, operand: Operand, indices: ir.Value, name: str) -> Operand:
    """The rows [i, n] of `operand` [·, n] at INT64 [i] `indices`."""

    def take(values: ir.Value) -> ir.Value:
        return g.op("Gather", values, indices, axis=0, name=name)

    def take_scale(scale: ir.Value | None) -> ir.Value | None:
        return None if scale is None else take(scale)

    rows, codes = operand.rows, operand.codes
    return Operand(
        None if rows is None else ScaledRows(take(rows.values), take_scale(rows.scale)),
        None if codes is None else replace(codes, values=take(codes.values), scale=take_scale(codes.scale)),
    )


def _zeros(g: GraphBuilder, scale: ir.Value) -> ir.Value:
    """UINT8 [·, 1], what stands for zero, for every one of `scale` [·, 1]."""
    return g.op("Expand", g.constant(ZERO_CODE, np.uint8), g.op("Shape", scale), name="zero")


def project(g: GraphBuilder, form: ProductFormat, name: str, operand: Operand, tensors: list[str]) -> ScaledRows:
    """The operand [·, in] times the tensors' transposes side by side: [·, Σ out]."""
    sources = [form.weights[tensor] for tensor in tensors]
    columns = sum(source.shape[0] for source in sources)
    if form.is_in_blocks(g.path(name)):
        shape = columns, sources[0].shape[1]
        rows = float_rows(g, operand)
        return ScaledRows(multiply_blocks(g, name, rows, shape, form.dtype, lambda: _joined(sources)))
    if not form.is_quantized(g.path(name)):
        weight = load_weight(g, form, f"{name}.weight", tensors)
        return ScaledRows(g.op("MatMul", float_rows(g, operand), weight, name=name))
    if operand.codes is None:
        raise ValueError(f"the operand was not prepared for the 8-bit product {g.path(name)}")
    values = g.op(
        "MatMulIntegerToFloat",
        operand.codes.values,
        g.weight(f"{name}.codes", [sources[0].shape[1], columns], INT8, lambda: _codes(_joined(sources)).T),
        g.scalar(operand.codes.step, FP32),
        g.weight(f"{name}.scale", [columns], FP32, lambda: row_scales(_joined(sources))),
        g.constant(ZERO_CODE, np.uint8),
        name=name,
        domain=MICROSOFT,
    )
    return ScaledRows(values, operand.codes.scale)


def load_weight(
    g: GraphBuilder, form: ProductFormat, name: str, tensors: list[str], transpose: bool = True
) -> ir.Value:
    """The tensors side by side as one float initializer: matrices `[in, Σ out]`, or as they are."""
    sources = [form.weights[tensor] for tensor in tensors]
    shape = list(sources[0].shape)
    if transpose:
        shape = [shape[1], sum(source.shape[0] for source in sources)]
    return g.weight(name, shape, form.dtype, lambda: _joined(sources).T if transpose else _joined(sources))


def gather_rows(g: GraphBuilder, form: ProductFormat, name: str, tensor: str, indices: ir.Value) -> ir.Value:
    """Rows `[·, width]`, in floats, of a table `[n, width]` that is stored in 8 bits unless it is an fp32 layer."""
    if not form.is_quantized(g.path(name)) and not form.is_in_blocks(g.path(name)):
        return g.op(
            "Gather", load_weight(g, form, f"{name}.weight", [tensor], transpose=False), indices, axis=0, name="tokens"
        )
    table, dtype = form.weights[tensor], form.dtype
    codes = g.weight(f"{name}.codes", table.shape, INT8, lambda: _codes(_joined([table]), dtype))
    scales = g.weight(
        f"{name}.scale", [table.shape[0], 1], dtype, lambda: round_up(row_scales(_joined([table])), dtype)[:, None]
    )
    rows = g.op("Cast", g.op("Gather", codes, indices, axis=0, name="codes_of_tokens"), to=form.dtype)
    return g.op("Mul", rows, g.op("Gather", scales, indices, axis=0, name="scales_of_tokens"), name="tokens")


def row_scales(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """What one step of each row's codes is worth: float32 [rows] from [rows, n]; one for a row of zeros."""
    peaks = np.abs(matrix).max(axis=1)
    scales: NDArray[np.float32] = np.where(peaks > 0, peaks / np.float32(LARGEST_CODE), np.float32(1))
    return scales


def _codes(matrix: NDArray[np.float32], dtype: ir.DataType = FP32) -> NDArray[np.int8]:
    """The nearest codes int8 [rows, n], halves to even, under scales that are stored as `dtype`."""
    scales = round_up(row_scales(matrix), dtype).astype(np.float32)
    codes: NDArray[np.int8] = np.rint(matrix / scales[:, None]).astype(np.int8)
    return codes


def _joined(sources: Sequence[LazyTensor]) -> NDArray[np.float32]:
    joined: NDArray[np.float32] = torch.cat([source.fp32() for source in sources]).numpy()
    return joined
