"""Weights and activations in one float type: fp32, fp16 or bf16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir
import torch

from ..architectures import DecoderConfig
from ..onnx_builder import GraphBuilder
from ..sources.weights import LazyTensor
from .lowering import LoweredWeights, LoweringInputs, rescale_for_fp16
from .operands import Operand, ScaledRows
from .weight_format import FP32, WeightFormat, matrix_elements

_TORCH = {ir.DataType.FLOAT16: torch.float16, ir.DataType.BFLOAT16: torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatFormat(WeightFormat):
    """Weights and activations of type `activations`."""

    def project(self, g: GraphBuilder, name: str, operand: Operand, weights: Sequence[LazyTensor]) -> ScaledRows:
        """Multiply by MatMul, with the transposed weights in one initializer."""
        return self._project_float(g, name, operand, weights)

    def gather_rows(self, g: GraphBuilder, name: str, table: LazyTensor, indices: ir.Value) -> ir.Value:
        """Gather rows of the float table."""
        return self._gather_float(g, name, table, indices)

    def weight_bytes(self, config: DecoderConfig) -> int:
        """Return 2 or 4 bytes per weight."""
        return self.activation_bytes * (matrix_elements(config) + config.vocabulary * config.hidden)

    def lower(self, inputs: LoweringInputs) -> LoweredWeights:
        """For fp16, rescale by powers of two so that activations stay in range; otherwise return the inputs."""
        if self.may_overflow:
            return rescale_for_fp16(inputs, self)
        return LoweredWeights(checkpoint=inputs.checkpoint, format=self)

    @property
    def runs_on_cpu(self) -> bool:
        """Whether the type is not bf16, for which the CPU provider has no kernels."""
        return self.activations != ir.DataType.BFLOAT16

    def fp32_twin(self) -> WeightFormat:
        """Return the fp32 format."""
        return replace(self, activations=FP32)

    def round_as_stored(self, tensor: LazyTensor) -> LazyTensor:
        """Round to `activations` if it is a 16-bit type."""
        dtype = _TORCH.get(self.activations)
        if dtype is None:
            return tensor
        return tensor.changed(lambda values: values.to(dtype).to(torch.float32), by_rows=True)
