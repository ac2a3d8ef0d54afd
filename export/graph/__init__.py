"""The ONNX graph of a Qwen3 embedding model, built from its config without tracing."""

from .model import GraphOptions, build_model

__all__ = ["GraphOptions", "build_model"]
