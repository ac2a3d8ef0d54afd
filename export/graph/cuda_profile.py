"""Build options of a graph for ONNX Runtime's CUDA provider, and what each release of it supports."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..options import CudaAttention
from ..release import DEFAULT_RELEASE, RuntimeVersion

CUDA_OPSET = 18
"""Before ONNX Runtime 1.24, newer versions of Cast, Reshape, Equal and others have no CUDA kernel."""
_HEAD_NORM = {CudaAttention.ROWS: RuntimeVersion(1, 28), CudaAttention.PAGES: RuntimeVersion(1, 29)}
"""First releases whose attention operator norms queries and keys, from the operator schemas in their wheels."""
_GATED_NORM = RuntimeVersion(1, 29)
"""First release with a CUDA kernel of GatedRMSNorm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaProfile:
    """How to build a graph for the CUDA provider."""

    runtime: RuntimeVersion = DEFAULT_RELEASE.runtime
    """ONNX Runtime release that will run the graph."""
    attention: CudaAttention = CudaAttention.ROWS
    """Layout of attention; fp32 always uses rows."""
    joint_gate_up: bool = False
    """Compute gate and up in one matrix product and split the result; to measure what separate products save."""
    gated_norm: bool = True
    """Whether to use GatedRMSNorm in releases that have it; off to measure what it saves."""
    cpu_twin: bool = False
    """Build the fp32 variant that the CPU provider can run, to check the numbers without a GPU."""

    def attention_for(self, dtype: ir.DataType) -> CudaAttention:
        """Return the attention layout for activations of `dtype`: PagedAttention does not support fp32."""
        return CudaAttention.ROWS if dtype == ir.DataType.FLOAT else self.attention

    def decomposes_attention(self, dtype: ir.DataType) -> bool:
        """Whether rope and repeat_kv are separate nodes, because CUDA's GroupQueryAttention does not support fp32."""
        return dtype == ir.DataType.FLOAT and not self.cpu_twin

    def needs_gpu(self, dtype: ir.DataType) -> bool:
        """Whether the CPU provider lacks the attention operator for activations of `dtype`."""
        return dtype != ir.DataType.FLOAT and (self.attention is CudaAttention.PAGES or self.norms_heads)

    def fuses_gate(self, dtype: ir.DataType) -> bool:
        """Whether one operator computes silu(gate) · up of type `dtype`: GatedRMSNorm, see `decoder`."""
        return self.gated_norm and not self.cpu_twin and self.runtime >= _GATED_NORM and dtype != ir.DataType.FLOAT

    @property
    def norms_heads(self) -> bool:
        """Whether the attention operator takes queries, keys and values in one tensor and norms queries and keys."""
        return not self.cpu_twin and self.runtime >= _HEAD_NORM[self.attention]
