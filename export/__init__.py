"""Checkpoint and adapters → a proven model in a Triton model repository.

The names are loaded when they are first used, so that reading an option's default does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..client.contract import Device
    from .errors import (
        AdapterMismatch,
        ExportError,
        Int8ErrorTooLarge,
        ModelExists,
        NdcgLossTooLarge,
        ParityFailed,
        SourceMissing,
        StagingFailed,
        UnsupportedCheckpoint,
    )
    from .graph import CudaProfile, GraphOptions
    from .options import (
        CudaAttention,
        EvaluationOptions,
        ExportOptions,
        Int8Options,
        MergeOptions,
        PairTemplate,
        ServerArchitecture,
        ServingOptions,
        TaskChoice,
    )
    from .pipeline import ExportResult, export_model
    from .progress import Progress, SilentProgress
    from .proof.ndcg import ndcg_by_query
    from .reading.checkpoint import open_checkpoint
    from .reading.source import AdapterReference, SourceReference
    from .release import RuntimeVersion, TritonRelease
    from .writing.cuda_options import cuda_provider_options
    from .writing.graph_file import write_graph
    from .writing.merged_checkpoint import write_merged_checkpoint

_HOMES = {
    "AdapterMismatch": "errors",
    "AdapterReference": "reading.source",
    "CudaAttention": "options",
    "CudaProfile": "graph",
    "Device": ".client.contract",
    "EvaluationOptions": "options",
    "ExportError": "errors",
    "ExportOptions": "options",
    "ExportResult": "pipeline",
    "GraphOptions": "graph",
    "Int8ErrorTooLarge": "errors",
    "Int8Options": "options",
    "MergeOptions": "options",
    "ModelExists": "errors",
    "NdcgLossTooLarge": "errors",
    "PairTemplate": "options",
    "ParityFailed": "errors",
    "Progress": "progress",
    "RuntimeVersion": "release",
    "ServerArchitecture": "options",
    "ServingOptions": "options",
    "SilentProgress": "progress",
    "SourceMissing": "errors",
    "SourceReference": "reading.source",
    "StagingFailed": "errors",
    "TaskChoice": "options",
    "TritonRelease": "release",
    "UnsupportedCheckpoint": "errors",
    "cuda_provider_options": "writing.cuda_options",
    "export_model": "pipeline",
    "ndcg_by_query": "proof.ndcg",
    "open_checkpoint": "reading.checkpoint",
    "write_graph": "writing.graph_file",
    "write_merged_checkpoint": "writing.merged_checkpoint",
}

__all__ = [
    "AdapterMismatch",
    "AdapterReference",
    "CudaAttention",
    "CudaProfile",
    "Device",
    "EvaluationOptions",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "GraphOptions",
    "Int8ErrorTooLarge",
    "Int8Options",
    "MergeOptions",
    "ModelExists",
    "NdcgLossTooLarge",
    "PairTemplate",
    "ParityFailed",
    "Progress",
    "RuntimeVersion",
    "ServerArchitecture",
    "ServingOptions",
    "SilentProgress",
    "SourceMissing",
    "SourceReference",
    "StagingFailed",
    "TaskChoice",
    "TritonRelease",
    "UnsupportedCheckpoint",
    "cuda_provider_options",
    "export_model",
    "ndcg_by_query",
    "open_checkpoint",
    "write_graph",
    "write_merged_checkpoint",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
