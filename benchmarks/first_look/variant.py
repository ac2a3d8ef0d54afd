"""Variants of a graph, and sessions on them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# torch first: it loads the CUDA and cuDNN libraries that ONNX Runtime then finds
import torch  # noqa: F401

import onnxruntime  # isort: skip

from qwen3_triton.export import CudaProfile, cuda_provider_options
from qwen3_triton.export.formats import WeightFormat

from ..cuda_session import CUDA_PROVIDER, NotOnGpuError


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How to build and run a graph."""

    format: WeightFormat
    profile: CudaProfile
    note: str = ""
    provider: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Additional options of the CUDA provider; an empty value removes one."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables that ONNX Runtime reads when it opens a session."""

    @property
    def name(self) -> str:
        """Precision, attention and note."""
        return " ".join(part for part in (self.format.precision, self.profile.attention, self.note) if part)

    def provider_options(self) -> dict[str, str]:
        """Return the options of the CUDA provider."""
        options = {**cuda_provider_options(self.format.precision, self.profile.runtime), **self.provider}
        return {key: value for key, value in options.items() if value}

    def open(self, file: Path, device: str, profile: str = "") -> Any:
        """Open a session on the graph of this variant at `file`; see `open_session`."""
        with _environment(self.environment):
            return open_session(file, device, self.provider_options(), profile)


def open_session(model: Path | bytes, device: str, provider: Mapping[str, str] | None = None, profile: str = "") -> Any:
    """Open a session.

    Args:
        model: ONNX file or serialized model.
        device: cuda or cpu.
        provider: options of the CUDA provider.
        profile: prefix of a profile's file; empty for none.

    Raises:
        NotOnGpuError: if the session falls back to the CPU.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    source = model if isinstance(model, bytes) else str(model)
    if device == "cpu":
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    providers = [(CUDA_PROVIDER, dict(provider or {})), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(source, options, providers=providers)
    if CUDA_PROVIDER not in session.get_providers():
        raise NotOnGpuError(f"ONNX Runtime fell back to {', '.join(session.get_providers())}")
    return session


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
