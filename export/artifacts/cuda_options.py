"""Options of ONNX Runtime's CUDA provider, used by the served model and by its parity check."""

from __future__ import annotations

import onnx_ir as ir

from ...client.manifest import Device, Precision
from ..formats import weight_format
from ..release import RuntimeVersion

_EXACT_SKIP_NORM = RuntimeVersion(1, 27)
_FLASH_ATTENTION = "1"


def cuda_provider_options(precision: Precision, runtime: RuntimeVersion) -> dict[str, str]:
    """Return the options of ONNX Runtime's CUDA provider for a model.

    TensorFloat-32 is off, because its 10-bit mantissa is too short for the fp32 head and for fp32 models. Before ONNX
    Runtime 1.27, `SkipSimplifiedLayerNormalization` accumulates in 16 bits unless strict mode is on. From 1.28 on,
    `GroupQueryAttention` would use cuDNN on Hopper, which builds a plan for each new shape.

    Args:
        precision: Precision of the model.
        runtime: ONNX Runtime release that runs it.

    Returns:
        Option name → value, for a session or for `config.pbtxt`.
    """
    options = {"use_tf32": "0"}
    if weight_format(precision, Device.CUDA).activations != ir.DataType.FLOAT:
        options["sdpa_kernel"] = _FLASH_ATTENTION
        if runtime < _EXACT_SKIP_NORM:
            options["enable_skip_layer_norm_strict_mode"] = "1"
    return options
