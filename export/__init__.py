"""Export of checkpoints and LoRA adapters to a Triton model repository.

Names are imported on first use, so that reading an option's default does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..client.manifest import Device, Verification
    from .artifacts.cuda_options import cuda_provider_options
    from .artifacts.fused_checkpoint import write_fused_checkpoint
    from .artifacts.graph_file import write_graph
    from .artifacts.merged_checkpoint import MergeResult, write_merged_checkpoint
    from .artifacts.versions import switch_version, version_in_use
    from .errors import (
        AdapterMismatchError,
        ExportError,
        FusionError,
        Int8AccuracyError,
        ModelExistsError,
        ParityError,
        RetrievalQualityError,
        SourceError,
        StagingError,
        UnknownVersionError,
        UnsupportedCheckpointError,
        WitnessError,
    )
    from .formats import Tolerance, WeightFormat, weight_format
    from .graph import CudaProfile, GraphOptions
    from .options import (
        CudaAttention,
        EvaluationOptions,
        ExportOptions,
        FuseOptions,
        FusionMethod,
        Int8Options,
        MergeOptions,
        PairTemplate,
        ServerArchitecture,
        ServingOptions,
        TaskChoice,
        WitnessChoice,
    )
    from .output_choice import OutputChoice
    from .pipeline import ExportResult, export_model
    from .plan import ExportPlan, PlannedFile, plan_export
    from .progress import Progress, SilentProgress
    from .release import RuntimeVersion, TritonRelease
    from .sources.checkpoint import open_checkpoint
    from .sources.references import AdapterReference, SourceReference, WeightedCheckpoint
    from .verification.ndcg import ndcg_by_query

_HOMES = {
    "AdapterMismatchError": "errors",
    "AdapterReference": "sources.references",
    "CudaAttention": "options",
    "CudaProfile": "graph",
    "Device": ".client.manifest",
    "EvaluationOptions": "options",
    "ExportError": "errors",
    "ExportOptions": "options",
    "ExportPlan": "plan",
    "ExportResult": "pipeline",
    "FuseOptions": "options",
    "FusionError": "errors",
    "FusionMethod": "options",
    "GraphOptions": "graph",
    "Int8AccuracyError": "errors",
    "Int8Options": "options",
    "MergeOptions": "options",
    "MergeResult": "artifacts.merged_checkpoint",
    "ModelExistsError": "errors",
    "RetrievalQualityError": "errors",
    "OutputChoice": "output_choice",
    "PairTemplate": "options",
    "ParityError": "errors",
    "PlannedFile": "plan",
    "Progress": "progress",
    "RuntimeVersion": "release",
    "ServerArchitecture": "options",
    "ServingOptions": "options",
    "SilentProgress": "progress",
    "SourceError": "errors",
    "SourceReference": "sources.references",
    "StagingError": "errors",
    "TaskChoice": "options",
    "Tolerance": "formats",
    "TritonRelease": "release",
    "UnknownVersionError": "errors",
    "UnsupportedCheckpointError": "errors",
    "Verification": ".client.manifest",
    "WeightFormat": "formats",
    "WeightedCheckpoint": "sources.references",
    "WitnessChoice": "options",
    "WitnessError": "errors",
    "cuda_provider_options": "artifacts.cuda_options",
    "export_model": "pipeline",
    "ndcg_by_query": "verification.ndcg",
    "open_checkpoint": "sources.checkpoint",
    "plan_export": "plan",
    "switch_version": "artifacts.versions",
    "version_in_use": "artifacts.versions",
    "weight_format": "formats",
    "write_fused_checkpoint": "artifacts.fused_checkpoint",
    "write_graph": "artifacts.graph_file",
    "write_merged_checkpoint": "artifacts.merged_checkpoint",
}

__all__ = [
    "AdapterMismatchError",
    "AdapterReference",
    "CudaAttention",
    "CudaProfile",
    "Device",
    "EvaluationOptions",
    "ExportError",
    "ExportOptions",
    "ExportPlan",
    "ExportResult",
    "FuseOptions",
    "FusionError",
    "FusionMethod",
    "GraphOptions",
    "Int8AccuracyError",
    "Int8Options",
    "MergeOptions",
    "MergeResult",
    "ModelExistsError",
    "OutputChoice",
    "PairTemplate",
    "ParityError",
    "PlannedFile",
    "Progress",
    "RetrievalQualityError",
    "RuntimeVersion",
    "ServerArchitecture",
    "ServingOptions",
    "SilentProgress",
    "SourceError",
    "SourceReference",
    "StagingError",
    "TaskChoice",
    "Tolerance",
    "TritonRelease",
    "UnknownVersionError",
    "UnsupportedCheckpointError",
    "Verification",
    "WeightFormat",
    "WeightedCheckpoint",
    "WitnessChoice",
    "WitnessError",
    "cuda_provider_options",
    "export_model",
    "ndcg_by_query",
    "open_checkpoint",
    "plan_export",
    "switch_version",
    "version_in_use",
    "weight_format",
    "write_fused_checkpoint",
    "write_graph",
    "write_merged_checkpoint",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
