"""The ONNX graph of a Qwen3 embedding model or reranker, built from its config without tracing."""

from .cuda_profile import CudaProfile
from .graph_options import GraphOptions
from .model import build_model

__all__ = ["CudaProfile", "GraphOptions", "build_model"]
