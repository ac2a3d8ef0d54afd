"""ONNX Runtime sessions on a GPU, and the time they spend in each kernel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

# torch first: it loads the CUDA and cuDNN libraries that ONNX Runtime then finds
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]

import onnxruntime  # isort: skip

if TYPE_CHECKING:
    from .contenders.session import Feed

CUDA_PROVIDER = "CUDAExecutionProvider"
_WARMUPS, _PASSES = 3, 5


class NotOnGpuError(Exception):
    """ONNX Runtime would run the session on the CPU."""


def open_cuda_session(model: Path, threads: int, provider: Mapping[str, str]) -> Any:
    """Open a session on the CUDA execution provider.

    Args:
        model: ONNX file.
        threads: intra-op threads for the nodes that run on the CPU.
        provider: options of the CUDA execution provider.

    Raises:
        NotOnGpuError: if the session falls back to the CPU.
    """
    # loads the CUDA libraries that are installed with torch
    onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers = [(CUDA_PROVIDER, dict(provider)), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(model), options, providers=providers)
    found = session.get_providers()
    if CUDA_PROVIDER not in found:
        raise NotOnGpuError(
            f"ONNX Runtime fell back to {', '.join(found)}; its build does not match the CUDA installed here"
        )
    return session


def profile_kernels(model: Path, threads: int, provider: Mapping[str, str], feed: Feed) -> dict[str, int]:
    """Return the microseconds per pass spent in each GPU kernel, largest first, as measured by CUPTI."""
    session = open_cuda_session(model, threads, provider)
    for _ in range(_WARMUPS):
        session.run(None, feed)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(_PASSES):
            session.run(None, feed)
        torch.cuda.synchronize()
    spent: Counter[str] = Counter()
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA:
            spent[kernel_name(event.name)] += round(event.time_range.elapsed_us())
    return {name: total // _PASSES for name, total in spent.most_common() if total >= _PASSES}


def kernel_name(symbol: str) -> str:
    """Strip return type, template arguments and parameters: `void ns::kernel<float, 4>(Params)` → `ns::kernel`."""
    bare = re.split(r"[<(]", symbol.replace("(anonymous namespace)::", ""), maxsplit=1)[0]
    return bare.removeprefix("void ").strip() or symbol
