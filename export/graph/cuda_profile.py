"""What a graph for ONNX Runtime's CUDA provider is built from, and what each of its releases can do."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..options import CudaAttention
from ..release import DEFAULT_RELEASE, RuntimeVersion

CUDA_OPSET = 18
"""Up to ONNX Runtime 1.24 later versions of Cast, Reshape, Equal and others have no CUDA kernel."""
_HEAD_NORM = {CudaAttention.ROWS: RuntimeVersion(1, 28), CudaAttention.PAGES: RuntimeVersion(1, 29)}
"""First releases whose operator norms queries and keys; from the schemas in their wheels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaProfile:
    """The runtime that a CUDA graph is for, and the choices that several runtimes leave open."""

    runtime: RuntimeVersion = DEFAULT_RELEASE.runtime
    attention: CudaAttention = CudaAttention.ROWS
    joint_products: bool = True
    """q, k, v as one product and gate, up as one, split afterwards; False: each by itself."""

    cpu_twin: bool = False
    """The graph in fp32, on rows and with operators that the CPU provider has, where its numbers can be checked."""

    def attention_for(self, dtype: ir.DataType) -> CudaAttention:
        """How attention is fed where activations are of `dtype`: PagedAttention has no fp32."""
        return CudaAttention.ROWS if dtype == ir.DataType.FLOAT else self.attention

    def spells_out_attention(self, dtype: ir.DataType) -> bool:
        """Whether rope and the repetition of keys are separate operators: CUDA has no GroupQueryAttention in fp32."""
        return dtype == ir.DataType.FLOAT and not self.cpu_twin

    def needs_gpu(self, dtype: ir.DataType) -> bool:
        """Whether the CPU provider lacks the attention operator for activations of `dtype`."""
        return dtype != ir.DataType.FLOAT and (self.attention is CudaAttention.PAGES or self.norms_heads)

    @property
    def norms_heads(self) -> bool:
        """Whether the attention operator takes the gains of the q and k norms."""
        return self.joint_products and not self.cpu_twin and self.runtime >= _HEAD_NORM[self.attention]
