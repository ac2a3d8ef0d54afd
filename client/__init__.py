"""gRPC clients for models that qwen3-triton exported, and the schema of their manifests.

`EmbeddingClient` turns texts into unit vectors, `RerankClient` turns (query, document) pairs into scores. Both need
only numpy, tokenizers and tritonclient[grpc]. `quantize_embeddings` makes vectors smaller, and `similarity` compares
them.
"""

import importlib
from typing import TYPE_CHECKING

from .errors import (
    ClientError,
    InvalidInputError,
    ManifestError,
    ModelChangedError,
    ModelNotLoadedError,
    ServerError,
    ServerOutOfMemoryError,
    ServerOverloadedError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from .manifest import (
    CompactOutput,
    EmbeddingManifest,
    ExportRecord,
    LayerErrors,
    Manifest,
    MergeReport,
    ModelRecipe,
    OutputType,
    PairPrompts,
    ParityReport,
    Precision,
    Prompts,
    QuantizationReport,
    RangeReport,
    RecommendedLoad,
    RerankManifest,
    RetrievalReport,
    ScoreParityReport,
    SourceIdentity,
    Task,
    TokenizerIdentity,
    Verification,
    WitnessReport,
)
from .partial_results import PartialResults

if TYPE_CHECKING:
    from .async_embedding import AsyncEmbeddingClient
    from .async_rerank import AsyncRerankClient
    from .connection import TlsOptions
    from .cosine_similarity import similarity
    from .embedding import EmbeddingClient
    from .quantization import fit_ranges, quantize_embeddings
    from .rerank import RerankClient
    from .rerank_call import RankedDocument
    from .server_info import ServerInfo
    from .vector_formats import EmbeddingDtype

__all__ = [
    "AsyncEmbeddingClient",
    "AsyncRerankClient",
    "ClientError",
    "CompactOutput",
    "EmbeddingClient",
    "EmbeddingDtype",
    "EmbeddingManifest",
    "ExportRecord",
    "InvalidInputError",
    "LayerErrors",
    "Manifest",
    "ManifestError",
    "MergeReport",
    "ModelChangedError",
    "ModelNotLoadedError",
    "ModelRecipe",
    "OutputType",
    "PairPrompts",
    "ParityReport",
    "PartialResults",
    "Precision",
    "Prompts",
    "QuantizationReport",
    "RangeReport",
    "RankedDocument",
    "RecommendedLoad",
    "RerankClient",
    "RerankManifest",
    "RetrievalReport",
    "ScoreParityReport",
    "ServerError",
    "ServerInfo",
    "ServerOutOfMemoryError",
    "ServerOverloadedError",
    "ServerTimeoutError",
    "ServerUnavailableError",
    "SourceIdentity",
    "Task",
    "TlsOptions",
    "TokenizerIdentity",
    "Verification",
    "WitnessReport",
    "fit_ranges",
    "quantize_embeddings",
    "similarity",
]

_LAZY_MODULES = {
    "AsyncEmbeddingClient": "async_embedding",
    "AsyncRerankClient": "async_rerank",
    "EmbeddingClient": "embedding",
    "EmbeddingDtype": "vector_formats",
    "RankedDocument": "rerank_call",
    "RerankClient": "rerank",
    "ServerInfo": "server_info",
    "TlsOptions": "connection",
    "fit_ranges": "quantization",
    "quantize_embeddings": "quantization",
    "similarity": "cosine_similarity",
}


def __getattr__(name: str) -> object:
    # every command imports the manifest and the errors; importing gRPC as well would cost 0.5 s
    if name not in _LAZY_MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY_MODULES[name]}", __name__), name)
