"""8-bit weights and 8-bit activations, for CPUs (W8A8).

rows [·, in] ─ / scale [·, 1] ─ round ─→ codes u8, zero point 128
                                           └─ times weight codes s8 [in, out] · scale [out] ─→ rows [·, out]

The result of an 8-bit product must still be multiplied by the scales of its rows. Results are batch-invariant,
because scales are per token or the same for all tokens, and integer sums do not depend on their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch

from ..architectures import DecoderConfig
from ..int8.plan import plan_int8
from ..int8.rounding import NORM_OUTPUT_SCALE
from ..onnx_builder import MICROSOFT, GraphBuilder
from ..passes.rotate import rotate_stream
from ..passes.rotation import make_rotation
from ..sources.checkpoint import Checkpoint
from ..sources.weights import LazyTensor, in_memory
from .lowering import LoweredWeights, LoweringInputs
from .operands import ZERO_CODE, Codes, Operand, ScaledRows
from .row_codes import INT8, LARGEST_CODE, gather_row_codes, quantize_tensors
from .weight_format import FP32, FusedNorm, WeightFormat, matrix_elements, transpose_parts

_KERNEL_COLUMNS = 16
"""ONNX Runtime 1.23 with AMX can return wrong products if the number of columns is not a multiple of this."""
_SMALLEST_PEAK = 1e-30
"""Avoids a division by zero for a row of zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class W8A8Format(WeightFormat):
    """Weights with a scale per output channel, activations with a scale per token or one for all tokens."""

    fp32_layers: frozenset[str] = frozenset()
    """Paths of products that are computed in floats, such as `layers.2.mlp.down`; `embedding.table` is the embedding
    table."""
    norm_output_scale: float | None = None
    """Common scale of the codes of all RMSNorm outputs; None gives each token its own scale."""

    def is_quantized(self, path: str) -> bool:
        """Whether the product at `path` is computed in 8 bits."""
        return path not in self.fp32_layers

    def fp32_paths(self) -> frozenset[str]:
        """Return `fp32_layers`."""
        return self.fp32_layers

    def project(self, g: GraphBuilder, name: str, operand: Operand, weights: Sequence[LazyTensor]) -> ScaledRows:
        """Multiply by MatMulIntegerToFloat, or by a float MatMul for fp32 layers."""
        if not self.is_quantized(g.path(name)):
            return self._project_float(g, name, operand, weights)
        if operand.codes is None:
            raise ValueError(f"{g.path(name)}: the operand was not prepared for an 8-bit product")
        columns, width = sum(weight.shape[0] for weight in weights), weights[0].shape[1]
        padding = -columns % _KERNEL_COLUMNS
        if padding:
            weights = [*weights, in_memory(torch.zeros(padding, width))]
        quantized, padded = quantize_tensors(weights, FP32), columns + padding
        values = g.op(
            "MatMulIntegerToFloat",
            operand.codes.values,
            quantized.codes(g, f"{name}.codes", [width, padded], INT8, lambda parts: transpose_parts(parts, padded)),
            g.scalar(operand.codes.step, FP32),
            quantized.scales(g, f"{name}.scale", [padded], FP32),
            g.constant(ZERO_CODE, np.uint8),
            name=name,
            domain=MICROSOFT,
        )
        if padding:
            values = g.op("Slice", values, g.constant([0]), g.constant([columns]), g.constant([1]), name=f"{name}.used")
        return ScaledRows(values, operand.codes.scale)

    def gather_rows(self, g: GraphBuilder, name: str, table: LazyTensor, indices: ir.Value) -> ir.Value:
        """Gather rows of 8-bit codes and multiply them by their scales."""
        if not self.is_quantized(g.path(name)):
            return self._gather_float(g, name, table, indices)
        return gather_row_codes(g, name, table, indices, self.activations)

    def prepare(self, g: GraphBuilder, rows: ScaledRows, width: int, products: Sequence[str]) -> Operand:
        """Quantize `rows`, each by its largest absolute value, once for all 8-bit products that read them."""
        if not any(self.is_quantized(g.path(product)) for product in products):
            return Operand(rows, None)
        values = rows.values
        axis = g.constant([1])
        lowest = g.op("Neg", g.op("ReduceMin", values, axis, keepdims=1))
        highest = g.op("ReduceMax", values, axis, keepdims=1)
        peak = g.op("Max", highest, lowest, g.scalar(_SMALLEST_PEAK, FP32), name="peak")
        scale = g.op("Mul", peak, g.scalar(1 / LARGEST_CODE, FP32), name="scale")
        codes = g.op("QuantizeLinear", values, scale, _zero_codes(g, scale), axis=1, block_size=width, name="codes")
        if rows.scale is not None:
            scale = g.op("Mul", scale, rows.scale, name="scale")
        return Operand(rows, Codes(values=codes, scale=scale))

    def prepare_normed(self, g: GraphBuilder, normed: ir.Value, width: int, products: Sequence[str]) -> Operand:
        """Quantize by `norm_output_scale` if it is set."""
        scale = self.norm_output_scale
        if scale is None or not all(self.is_quantized(g.path(product)) for product in products):
            return self.prepare(g, ScaledRows(normed), width, products)
        codes = g.op("QuantizeLinear", normed, g.scalar(scale, FP32), g.constant(ZERO_CODE, np.uint8), name="codes")
        return Operand(ScaledRows(normed), Codes(values=codes, step=scale))

    def fused_norm(self, g: GraphBuilder, products: Sequence[str]) -> FusedNorm | None:
        """Normalize and quantize by one division, if `norm_output_scale` is set and every product is 8 bits."""
        step = self.norm_output_scale
        if step is None or not all(self.is_quantized(g.path(product)) for product in products):
            return None

        def norm_to_codes(rows: ir.Value, width: int, eps: float) -> Codes:
            squares = g.op("ReduceSumSquare", rows, g.constant([1]), keepdims=1, name="squares")
            length = g.op("Sqrt", g.op("Add", squares, g.scalar(width * eps, FP32)), name="length")
            scale = g.op("Mul", length, g.scalar(step / math.sqrt(width), FP32), name="scale")
            codes = g.op("QuantizeLinear", rows, scale, _zero_codes(g, scale), axis=1, block_size=width, name="codes")
            return Codes(values=codes, step=step)

        return norm_to_codes

    def weight_bytes(self, config: DecoderConfig) -> int:
        """Return one byte per weight; scales and fp32 layers are not counted."""
        return matrix_elements(config) + config.vocabulary * config.hidden

    @property
    def needs_calibration(self) -> bool:
        """True: smoothing is chosen from activations."""
        return True

    def lower(self, inputs: LoweringInputs) -> LoweredWeights:
        """Rotate the residual stream, smooth the activations outside of it, and choose the fp32 layers."""
        plan = plan_int8(inputs.checkpoint, inputs.calibration_rows, inputs.max_cosine_error, inputs.progress)
        if plan.fp32_groups:
            names = ", ".join(path for group in plan.fp32_groups for path in group.paths)
            inputs.progress.note(f"computed in fp32, {plan.fp32_share:.1%} of the multiply-adds: {names}")
        lowered = replace(self, fp32_layers=plan.fp32_paths, norm_output_scale=NORM_OUTPUT_SCALE)
        return LoweredWeights(checkpoint=plan.checkpoint, format=lowered, int8_plan=plan)

    def planned(self, checkpoint: Checkpoint) -> LoweredWeights:
        """Return the rotated weights, without fp32 layers."""
        rotation = make_rotation(checkpoint.config.hidden)
        rotated = rotate_stream(checkpoint.weights, checkpoint.config, rotation)
        format = replace(self, norm_output_scale=NORM_OUTPUT_SCALE)
        return LoweredWeights(checkpoint=checkpoint.with_weights(rotated), format=format)

    def fp32_twin(self) -> WeightFormat:
        """Return the format itself, which is made for CPUs."""
        return self


def _zero_codes(g: GraphBuilder, scale: ir.Value) -> ir.Value:
    """Return zero points UINT8 [·, 1] for `scale` [·, 1]."""
    return g.op("Expand", g.constant(ZERO_CODE, np.uint8), g.op("Shape", scale), name="zero")
