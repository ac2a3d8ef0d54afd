"""Left operands of matrix products: rows of floats, of 8-bit codes, or both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from ..onnx_builder import GraphBuilder

ZERO_CODE = 128
"""Zero point of 8-bit activations. They are unsigned because the CPU kernels compute u8 × s8 products."""


@dataclass(frozen=True, slots=True)
class ScaledRows:
    """Rows `values` [·, n] times `scale` [·, 1]; a scale of None is 1."""

    values: ir.Value
    scale: ir.Value | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Quantized rows [·, n]: (`values` - ZERO_CODE) · `step` · `scale`."""

    values: ir.Value
    """UINT8 [·, n]"""
    step: float = 1.0
    """Scale that is common to all rows."""
    scale: ir.Value | None = None
    """FP32 [·, 1], scale of each row; None is 1."""


@dataclass(frozen=True, slots=True)
class Operand:
    """The left operand of one or more products."""

    rows: ScaledRows | None
    """None if only 8-bit products read the operand."""
    codes: Codes | None
    """None if no 8-bit product reads the operand."""


def apply_scale(g: GraphBuilder, rows: ScaledRows) -> ir.Value:
    """Return the float values [·, n] of `rows`."""
    return rows.values if rows.scale is None else g.op("Mul", rows.values, rows.scale, name="scaled")


def float_rows(g: GraphBuilder, operand: Operand) -> ir.Value:
    """Return the float rows [·, n] of `operand`; raise ValueError if it has codes only."""
    if operand.rows is None:
        raise ValueError(f"{g.path('')}: the operand was prepared for 8-bit products only")
    return apply_scale(g, operand.rows)


def take_rows(g: GraphBuilder, operand: Operand, indices: ir.Value, name: str) -> Operand:
    """Return the rows [i, n] of `operand` [·, n] at INT64 [i] `indices`."""

    def take(values: ir.Value) -> ir.Value:
        return g.op("Gather", values, indices, axis=0, name=name)

    def take_scale(scale: ir.Value | None) -> ir.Value | None:
        return None if scale is None else take(scale)

    rows, codes = operand.rows, operand.codes
    return Operand(
        None if rows is None else ScaledRows(take(rows.values), take_scale(rows.scale)),
        None if codes is None else replace(codes, values=take(codes.values), scale=take_scale(codes.scale)),
    )
