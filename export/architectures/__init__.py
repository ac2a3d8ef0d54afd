"""Supported decoder architectures, one module each."""

from .architecture import Architecture
from .decoder_config import DecoderConfig, RopeSettings
from .qwen2 import QWEN2
from .qwen3 import QWEN3
from .tensor_names import EMBEDDINGS, FINAL_NORM, HEADS, LM_HEAD, SCORE_HEAD, LayerTensors

ARCHITECTURES = (QWEN3, QWEN2)

__all__ = [
    "ARCHITECTURES",
    "EMBEDDINGS",
    "FINAL_NORM",
    "HEADS",
    "LM_HEAD",
    "QWEN2",
    "QWEN3",
    "SCORE_HEAD",
    "Architecture",
    "DecoderConfig",
    "LayerTensors",
    "RopeSettings",
]
