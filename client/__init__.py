"""Text to vector and pair to score: the clients of exported models; need numpy, tokenizers and tritonclient[grpc]."""

import importlib
from typing import TYPE_CHECKING

from .errors import (
    ClientError,
    InvalidInputError,
    ManifestError,
    ServerError,
    ServerOverloadedError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from .manifest import (
    EmbeddingManifest,
    ExportRecord,
    LayerErrors,
    Manifest,
    PairPrompts,
    ParityReport,
    Precision,
    Prompts,
    QuantizationReport,
    RerankManifest,
    RetrievalReport,
    ScoreParityReport,
    SourceIdentity,
    Task,
    TokenizerIdentity,
)

if TYPE_CHECKING:
    from .embedding import EmbeddingClient
    from .rerank import RerankClient
    from .rerank_call import RankedDocument

__all__ = [
    "ClientError",
    "EmbeddingClient",
    "EmbeddingManifest",
    "ExportRecord",
    "InvalidInputError",
    "LayerErrors",
    "Manifest",
    "ManifestError",
    "PairPrompts",
    "ParityReport",
    "Precision",
    "Prompts",
    "QuantizationReport",
    "RankedDocument",
    "RerankClient",
    "RerankManifest",
    "RetrievalReport",
    "ScoreParityReport",
    "ServerError",
    "ServerOverloadedError",
    "ServerTimeoutError",
    "ServerUnavailableError",
    "SourceIdentity",
    "Task",
    "TokenizerIdentity",
]

_HOMES = {"EmbeddingClient": "embedding", "RankedDocument": "rerank_call", "RerankClient": "rerank"}


def __getattr__(name: str) -> object:
    # manifest and errors are read by every command, which need not wait 0.5 s for gRPC
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
