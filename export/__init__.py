"""Checkpoint and adapters → a proven model in a Triton model repository."""

from .config_pbtxt import ServingOptions
from .errors import (
    AdapterMismatch,
    ExportError,
    ModelExists,
    ParityFailed,
    SourceMissing,
    StagingFailed,
    UnsupportedCheckpoint,
)
from .merged_checkpoint import MergeOptions, write_merged_checkpoint
from .pipeline import ExportOptions, ExportResult, export_model
from .progress import Progress, SilentProgress
from .source import AdapterReference, SourceReference
from .task import TaskChoice

__all__ = [
    "AdapterMismatch",
    "AdapterReference",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "MergeOptions",
    "ModelExists",
    "ParityFailed",
    "Progress",
    "ServingOptions",
    "SilentProgress",
    "SourceMissing",
    "SourceReference",
    "StagingFailed",
    "TaskChoice",
    "UnsupportedCheckpoint",
    "export_model",
    "write_merged_checkpoint",
]
