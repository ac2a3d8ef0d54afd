"""The kernels of ONNX Runtime's CUDA provider by release, and a check that a graph uses no other.

Source: kernel registries of the released wheels 1.23.0, 1.23.2, 1.24.1, 1.24.4, 1.27.0 and 1.31.1, which
docs/OperatorKernels.md of each release also lists. An operator without a CUDA kernel runs on the CPU, and the copies
to the host and back cost more than a whole layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ..errors import ExportError, list_keys
from ..onnx_builder import MICROSOFT
from ..release import RuntimeVersion

_FP32, _FP16, _BF16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16
_INT64, _INT32, _INT8, _BOOL = ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT8, ir.DataType.BOOL
_FLOATS = (_FP32, _FP16, _BF16)
_HALVES = (_FP16, _BF16)
_V1_23 = RuntimeVersion(1, 23)
_V1_24 = RuntimeVersion(1, 24, 1)
_V1_27 = RuntimeVersion(1, 27)
_V1_29 = RuntimeVersion(1, 29)

_LAYERS = "layers."
_HEAD = "head."
_BOOKKEEPING = "rows."


@dataclass(frozen=True, slots=True)
class CudaKernel:
    """A kernel of the CUDA provider."""

    operator: str
    since_version: int
    """`since_version` of the operator's schema."""
    types: tuple[ir.DataType, ...]
    """Types of the operator's main operand; only those that the graphs of this package use."""
    first: RuntimeVersion = _V1_23
    """First release with the kernel."""
    domain: str = ""


CUDA_KERNELS = (
    CudaKernel("Add", 14, (*_FLOATS, _INT64, _INT32)),
    CudaKernel("And", 7, (_BOOL,)),
    CudaKernel("Cast", 13, (*_FLOATS, _INT64, _INT32, _INT8, _BOOL)),
    CudaKernel("Cast", 19, (*_FLOATS, _INT64, _INT32, _INT8, _BOOL)),
    CudaKernel("Cast", 21, (*_FLOATS, _INT64, _INT32, _INT8, _BOOL), _V1_24),
    CudaKernel("Compress", 11, (_INT64,)),
    CudaKernel("Concat", 13, (*_FLOATS, _INT64, _INT32)),
    CudaKernel("ConstantOfShape", 9, _FLOATS),
    CudaKernel("ConstantOfShape", 20, _FLOATS, _V1_27),
    CudaKernel("ConstantOfShape", 21, _FLOATS, _V1_27),
    CudaKernel("CumSum", 14, (_INT64, _INT32)),
    CudaKernel("Div", 14, (*_FLOATS, _INT64)),
    CudaKernel("Equal", 13, (_INT64,)),
    CudaKernel("Equal", 19, (_INT64,), _V1_27),
    CudaKernel("Exp", 13, _FLOATS),
    CudaKernel("Expand", 13, (_INT64,)),
    CudaKernel("Flatten", 13, _FLOATS),
    CudaKernel("Gather", 13, (*_FLOATS, _INT64, _INT8)),
    CudaKernel("Greater", 13, (_INT64,)),
    CudaKernel("GreaterOrEqual", 16, (_INT64,)),
    CudaKernel("Less", 13, (_INT64,)),
    CudaKernel("LessOrEqual", 16, (_INT64,)),
    CudaKernel("If", 16, (_BOOL,)),
    CudaKernel("IsNaN", 13, (_FP32,)),
    CudaKernel("LpNormalization", 1, (_FP32, _FP16), _V1_27),
    CudaKernel("MatMul", 13, _FLOATS),
    CudaKernel("Max", 13, (*_FLOATS, _INT64)),
    CudaKernel("Min", 13, (_INT64,)),
    CudaKernel("Mul", 14, (*_FLOATS, _INT64)),
    CudaKernel("Not", 1, (_BOOL,)),
    CudaKernel("Range", 11, (_INT64,)),
    CudaKernel("ReduceL2", 18, (_FP32, _FP16)),
    CudaKernel("Reshape", 14, (*_FLOATS, _INT64)),
    CudaKernel("Reshape", 19, (*_FLOATS, _INT64)),
    CudaKernel("Reshape", 21, (*_FLOATS, _INT64), _V1_24),
    CudaKernel("ScatterElements", 18, (_INT64,)),
    CudaKernel("Shape", 15, (*_FLOATS, _INT64)),
    CudaKernel("Shape", 19, (*_FLOATS, _INT64)),
    CudaKernel("Shape", 21, (*_FLOATS, _INT64), _V1_24),
    CudaKernel("Sigmoid", 13, _FLOATS),
    CudaKernel("SimplifiedLayerNormalization", 1, _FLOATS),
    CudaKernel("Size", 13, (_INT64,)),
    CudaKernel("Size", 19, (_INT64,), _V1_27),
    CudaKernel("Size", 21, (_INT64,), _V1_27),
    CudaKernel("Slice", 13, (*_FLOATS, _INT64)),
    CudaKernel("Split", 18, _FLOATS),
    CudaKernel("Squeeze", 13, (_FP32, _INT64)),
    CudaKernel("Squeeze", 21, (_FP32, _INT64), _V1_24),
    CudaKernel("Sub", 14, (_INT64, _INT32)),
    CudaKernel("Tanh", 13, _FLOATS),
    CudaKernel("TopK", 11, (_INT64,)),
    CudaKernel("Transpose", 13, _FLOATS),
    CudaKernel("Transpose", 21, _FLOATS, _V1_24),
    CudaKernel("Unsqueeze", 13, (*_FLOATS, _INT64, _BOOL)),
    CudaKernel("Unsqueeze", 21, (*_FLOATS, _INT64, _BOOL), _V1_24),
    CudaKernel("Where", 16, (_FP32, _INT64, _INT32)),
    CudaKernel("GatedRMSNorm", 1, _HALVES, _V1_29, domain=MICROSOFT),
    CudaKernel("GroupQueryAttention", 1, _HALVES, domain=MICROSOFT),
    CudaKernel("MatMulNBits", 1, _FLOATS, domain=MICROSOFT),
    CudaKernel("MultiHeadAttention", 1, (_FP32, _FP16), domain=MICROSOFT),
    CudaKernel("PagedAttention", 1, _HALVES, domain=MICROSOFT),
    CudaKernel("QuickGelu", 1, _FLOATS, domain=MICROSOFT),
    CudaKernel("RestorePadding", 1, (_FP32, _FP16), domain=MICROSOFT),
    CudaKernel("RotaryEmbedding", 1, _FLOATS, domain=MICROSOFT),
    CudaKernel("SkipSimplifiedLayerNormalization", 1, _FLOATS, domain=MICROSOFT),
)

_FORBIDDEN_IN_LAYERS = frozenset({"Cast", "Loop", "Scan", "If", "Compress", "NonZero", "Shape", "Size"})
"""Operators that copy whole tensors, run control flow on the host, or make the host wait for the GPU."""


def require_cuda_kernels(model: ir.Model, dtype: ir.DataType, runtime: RuntimeVersion) -> None:
    """Raise ExportError if a node of `model`, whose layers compute in `dtype`, would not run on the GPU."""
    missing = missing_kernels(ir.traversal.RecursiveGraphIterator(model.graph), model.opset_imports, dtype, runtime)
    if missing:
        raise ExportError(
            f"ONNX Runtime {runtime} has no CUDA kernel for {list_keys(missing)}; "
            "choose a newer Triton release or another precision"
        )


def missing_kernels(
    nodes: Iterable[ir.Node], opsets: dict[str, int], dtype: ir.DataType, runtime: RuntimeVersion
) -> list[str]:
    """Return `name (Operator-opset type)` of each node that has no CUDA kernel or is forbidden in a layer."""
    kernels = {(kernel.domain, kernel.operator, kernel.since_version): kernel for kernel in CUDA_KERNELS}
    missing = []
    for node in nodes:
        name = node.name or ""
        version = _since_version(node, opsets)
        kernel = kernels.get((node.domain, node.op_type, version))
        types = _main_types(name, dtype)
        forbidden = name.startswith(_LAYERS) and node.op_type in _FORBIDDEN_IN_LAYERS
        if forbidden or kernel is None or kernel.first > runtime or not types & set(kernel.types):
            missing.append(f"{name} ({node.op_type}-{version} {dtype.name.lower()})")
    return missing


def _since_version(node: ir.Node, opsets: dict[str, int]) -> int:
    if not onnx.defs.has(node.op_type, opsets[node.domain], node.domain):
        # an operator of ONNX Runtime; some of them are in the standard domain
        return 1
    version: int = onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain).since_version
    return version


def _main_types(name: str, dtype: ir.DataType) -> set[ir.DataType]:
    """Return the types that the main operand of the node `name` may have, from its path."""
    if name.startswith(_BOOKKEEPING):
        return {_INT64, _BOOL, dtype}
    if name.startswith(_HEAD):
        return {_FP32, _INT32, _BOOL}
    return {dtype}
