"""Build options of a graph for ONNX Runtime's CUDA provider, and what each release of it supports."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..options import CudaAttention
from ..release import DEFAULT_RELEASE, RuntimeVersion

_FAST_PAGES = RuntimeVersion(1, 27)
"""First release in which attention over pages is faster for mixed lengths. On an H100, 24 texts of 13 to 173 tokens
take the 0.6B model 8.7 ms over pages and 11.9 ms over rows with 1.27, 8.1 and 11.8 ms with 1.31. Releases up to 1.24
launch thread blocks for as many queries per row as the batch has tokens; they have not been measured."""
CUDA_OPSET = 18
"""Before ONNX Runtime 1.24, newer versions of Cast, Reshape, Equal and others have no CUDA kernel."""
_HEAD_NORM = RuntimeVersion(1, 28)
"""First release whose GroupQueryAttention norms queries and keys."""
_PAGE_BOUNDS = RuntimeVersion(1, 29)
"""First release whose PagedAttention takes the longest sequence from host memory, instead of waiting for the GPU."""
_CHECKED_PADDING = RuntimeVersion(1, 31)
"""First release whose RestorePadding waits for the GPU, to check its indices."""
_GATED_NORM = RuntimeVersion(1, 29)
"""First release with a CUDA kernel of GatedRMSNorm."""


def faster_attention(runtime: RuntimeVersion) -> CudaAttention:
    """Return the attention that is faster over batches of mixed lengths."""
    return CudaAttention.PAGES if runtime >= _FAST_PAGES else CudaAttention.ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaProfile:
    """How to build a graph for the CUDA provider."""

    runtime: RuntimeVersion = DEFAULT_RELEASE.runtime
    """ONNX Runtime release that will run the graph."""
    attention: CudaAttention = CudaAttention.ROWS
    """Attention over batches of mixed lengths; fp32 always uses rows."""
    dense_batches: bool = True
    """Compute batches of nearly equal lengths with their padding, see `row_grid`; off to measure what that saves."""
    cpu_twin: bool = False
    """Build the variant that the CPU provider can run in fp32 and fp16, to check the numbers without a GPU."""

    def attention_for(self, dtype: ir.DataType) -> CudaAttention:
        """Return the attention layout for activations of `dtype`: PagedAttention does not support fp32."""
        return CudaAttention.ROWS if dtype == ir.DataType.FLOAT else self.attention

    def decomposes_attention(self, dtype: ir.DataType) -> bool:
        """Whether rope and repeat_kv are separate nodes, because CUDA's GroupQueryAttention does not support fp32."""
        return dtype == ir.DataType.FLOAT and not self.cpu_twin

    def needs_gpu(self, dtype: ir.DataType) -> bool:
        """Whether the CPU provider lacks an operator of attention for activations of `dtype`."""
        pages = self.attention_for(dtype) is CudaAttention.PAGES
        return self.restores_padding(dtype) or (dtype != ir.DataType.FLOAT and (pages or self.norms_heads))

    def restores_padding(self, dtype: ir.DataType) -> bool:
        """Whether RestorePadding moves values of `dtype` between packed tokens and rows."""
        return dtype == ir.DataType.FLOAT16 and not self.cpu_twin and self.runtime < _CHECKED_PADDING

    @property
    def fuses_gate(self) -> bool:
        """Whether GatedRMSNorm can compute silu(gate) · up."""
        return not self.cpu_twin and self.runtime >= _GATED_NORM

    @property
    def norms_heads(self) -> bool:
        """Whether GroupQueryAttention norms queries and keys."""
        return not self.cpu_twin and self.runtime >= _HEAD_NORM

    @property
    def bounds_pages(self) -> bool:
        """Whether PagedAttention takes the longest sequence from host memory."""
        return self.runtime >= _PAGE_BOUNDS
