"""Options of ONNX Runtime's CUDA provider, the same in a served model and in its check."""

from __future__ import annotations

import onnx_ir as ir

from ...client.manifest import Device, Precision
from ..formats import weight_format
from ..release import RuntimeVersion

_EXACT_SKIP_NORM = RuntimeVersion(1, 27)


def cuda_provider_options(precision: Precision, runtime: RuntimeVersion) -> dict[str, str]:
    """Return option → value.

    TensorFloat-32 is off: its 10 bits are too few for the head and for fp32 models. Up to ONNX Runtime 1.24 the fused
    norm of an fp16 sum accumulates in fp16 unless strict mode is on.
    """
    options = {"use_tf32": "0"}
    if weight_format(precision, Device.CUDA).activations == ir.DataType.FLOAT16 and runtime < _EXACT_SKIP_NORM:
        options["enable_skip_layer_norm_strict_mode"] = "1"
    return options
