"""The weight format of each precision and device. A new precision is one module and one row here."""

from __future__ import annotations

import onnx_ir as ir

from ...client.manifest import Device, Precision
from ..errors import ExportError
from .float_weights import FloatFormat
from .w8a8 import W8A8Format
from .weight_blocks import BlockFormat
from .weight_format import Tolerance, WeightFormat

_FP32 = FloatFormat(precision=Precision.FP32, tolerance=Tolerance(cosine=1e-6, score=1e-4))
_FP16 = FloatFormat(
    precision=Precision.FP16, activations=ir.DataType.FLOAT16, tolerance=Tolerance(cosine=1e-4, score=1e-2)
)
_BF16 = FloatFormat(
    precision=Precision.BF16,
    activations=ir.DataType.BFLOAT16,
    # ONNX Runtime's CUDA kernel of QuickGelu computes 1 - 1/(1 + exp(x)) in bf16 for x < 0, which cancels
    silu_by_exp=True,
    # GPU kernels sum in an order that depends on the batch size, and bf16 rounds to 8 bits
    tolerance=Tolerance(cosine=1e-3, score=5e-2, batched_cosine=1e-3, batched_score=5e-2),
)
_INT8_TOLERANCE = Tolerance(cosine=1e-2, score=1e-1)

FORMATS: dict[tuple[Precision, Device], WeightFormat] = {
    (Precision.FP32, Device.CPU): _FP32,
    (Precision.FP32, Device.CUDA): _FP32,
    (Precision.FP16, Device.CPU): _FP16,
    (Precision.FP16, Device.CUDA): _FP16,
    (Precision.BF16, Device.CUDA): _BF16,
    (Precision.INT8, Device.CPU): W8A8Format(precision=Precision.INT8, tolerance=_INT8_TOLERANCE),
    (Precision.INT8, Device.CUDA): BlockFormat(precision=Precision.INT8, tolerance=_INT8_TOLERANCE),
}


def weight_format(precision: Precision, device: Device) -> WeightFormat:
    """Return the weight format of `precision` on `device`.

    Raises:
        ExportError: The precision is not available on the device.
    """
    format = FORMATS.get((precision, device))
    if format is None:
        available = ", ".join(name for name, other in FORMATS if other is device)
        raise ExportError(f"precision {precision} is not available on device {device}; use one of {available}")
    return format
