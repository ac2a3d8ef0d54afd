"""ONNX Runtime sessions on a GPU, and which kernels their time goes into."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from .contenders.session import Feed

CUDA_PROVIDER = "CUDAExecutionProvider"
_WARMUPS, _PASSES = 3, 5


class NotOnGpu(Exception):
    """The session would run on the CPU."""


def open_cuda_session(model: Path, threads: int, provider: Mapping[str, str]) -> Any:
    """A session with the CUDA provider and its options; raises NotOnGpu where it comes up without."""
    # finds the libraries that came with torch
    onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers = [(CUDA_PROVIDER, dict(provider)), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(model), options, providers=providers)
    found = session.get_providers()
    if CUDA_PROVIDER not in found:
        raise NotOnGpu(f"ONNX Runtime fell back to {', '.join(found)}; its build and this machine's CUDA do not fit")
    return session


def profile_kernels(model: Path, threads: int, provider: Mapping[str, str], feed: Feed) -> dict[str, int]:
    """Microseconds of one pass by GPU kernel, the largest first: CUPTI sees every kernel of the process."""
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
    """`void ns::kernel<float, 4>(Params)` as `ns::kernel`: without what the compiler adds."""
    bare = re.split(r"[<(]", symbol.replace("(anonymous namespace)::", ""), maxsplit=1)[0]
    return bare.removeprefix("void ").strip() or symbol
