"""Options of ONNX Runtime's CUDA provider, the same in a served model and in its check."""

from __future__ import annotations

from ...client.manifest import Precision
from ..release import RuntimeVersion

_EXACT_SKIP_NORM = RuntimeVersion(1, 27)


def cuda_provider_options(precision: Precision, runtime: RuntimeVersion) -> dict[str, str]:
    """Option → value.

    TensorFloat-32 has 10 bits where the head and fp32 models need 23. Up to 1.24 the fused norm of an fp16 sum added up
    in fp16 unless it was told to be strict.
    """
    options = {"use_tf32": "0"}
    if precision in (Precision.FP16, Precision.INT8) and runtime < _EXACT_SKIP_NORM:
        options["enable_skip_layer_norm_strict_mode"] = "1"
    return options
