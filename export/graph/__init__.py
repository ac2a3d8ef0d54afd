"""The ONNX graph of a Qwen3 embedding model or reranker, built from its config without tracing."""

from .cuda_profile import CudaProfile
from .model import GraphOptions, build_model

__all__ = ["CudaProfile", "GraphOptions", "build_model"]
