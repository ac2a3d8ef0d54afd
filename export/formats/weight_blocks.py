"""8-bit weights in blocks with float activations, for GPUs: half the memory of fp16.

This is the format of ONNX Runtime's MatMulNBits: w = (code - 128) · scale, in blocks along the inner dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..architectures import DecoderConfig
from ..onnx_builder import MICROSOFT, GraphBuilder
from ..sources.weights import LazyTensor, parts_of
from .codes_and_scales import CodesAndScales, Quantized
from .lowering import LoweredWeights, LoweringInputs, rescale_for_fp16
from .operands import Operand, ScaledRows, float_rows
from .row_codes import gather_row_codes, round_up
from .weight_format import FP32, WeightFormat, matrix_elements

BLOCK = 128
"""Weights per scale. The inner dimensions of all Qwen3 models are multiples of 128."""
_LARGEST_CODE = 127
_ZERO_CODE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFormat(WeightFormat):
    """Matrices in 8-bit blocks, the embedding table in 8-bit rows, everything else of type `activations`."""

    activations: ir.DataType = ir.DataType.FLOAT16

    def project(self, g: GraphBuilder, name: str, operand: Operand, weights: Sequence[LazyTensor]) -> ScaledRows:
        """Multiply by MatMulNBits with 8 bits."""
        columns, width = sum(weight.shape[0] for weight in weights), weights[0].shape[1]
        blocks, dtype = block_count(width), self.activations
        rows = float_rows(g, operand)
        quantized = CodesAndScales(lambda: (quantize_blocks(part.numpy(), dtype) for part in parts_of(weights)))
        codes = quantized.codes(g, f"{name}.codes", [columns, blocks, BLOCK], ir.DataType.UINT8)
        scales = quantized.scales(g, f"{name}.scales", [columns, blocks], dtype)
        product = g.op(
            "MatMulNBits",
            rows,
            codes,
            scales,
            name=name,
            domain=MICROSOFT,
            K=width,
            N=columns,
            bits=8,
            block_size=BLOCK,
        )
        return ScaledRows(product)

    def gather_rows(self, g: GraphBuilder, name: str, table: LazyTensor, indices: ir.Value) -> ir.Value:
        """Gather rows of 8-bit codes and multiply them by their scales."""
        return gather_row_codes(g, name, table, indices, self.activations)

    def weight_bytes(self, config: DecoderConfig) -> int:
        """Return one byte per weight plus a 16-bit scale per block and per row of the embedding table."""
        matrices = matrix_elements(config)
        return matrices + 2 * matrices // BLOCK + config.vocabulary * config.hidden + 2 * config.vocabulary

    def workspace_bytes(self, config: DecoderConfig) -> int:
        """Return the bytes of the largest matrix in fp16: kernels dequantize one matrix at a time."""
        return self.activation_bytes * config.hidden * max(config.query_width, config.intermediate)

    def lower(self, inputs: LoweringInputs) -> LoweredWeights:
        """Rescale by powers of two, because activations are fp16."""
        return rescale_for_fp16(inputs, self)

    def fp32_twin(self) -> WeightFormat:
        """Return the format with fp32 activations and scales."""
        return replace(self, activations=FP32)


def quantize_blocks(matrix: NDArray[np.float32], dtype: ir.DataType) -> Quantized:
    """Quantize `matrix` [rows, n]: codes uint8 [rows, blocks, BLOCK] and scales [rows, blocks] of the type `dtype`.

    The last block of a row is padded with zeros. A weight changes by at most half of its scale.
    """
    values = _split_blocks(matrix)
    scales = round_up(np.abs(values).max(axis=2) / np.float32(_LARGEST_CODE), dtype)
    steps = values / scales.astype(np.float32)[:, :, None]
    np.rint(steps, out=steps)
    steps += _ZERO_CODE
    return Quantized(steps.astype(np.uint8), scales)


def _split_blocks(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """[rows, blocks, BLOCK], the last block of a row padded with zeros."""
    rows, width = matrix.shape
    blocks = block_count(width)
    padded = np.zeros((rows, blocks * BLOCK), np.float32)
    padded[:, :width] = matrix
    return padded.reshape(rows, blocks, BLOCK)


def block_count(width: int) -> int:
    """Return the number of blocks in a row of `width` weights."""
    return -(-width // BLOCK)
