"""Exceptions of the exporter.

ExportError
├── SourceError            a checkpoint, adapter or file does not exist or cannot be read
├── UnsupportedCheckpointError    the checkpoint has a setting that this project does not support
├── AdapterMismatchError          an adapter does not match its base model; lists the keys
├── ModelExistsError              the repository already has a model of that name
├── StagingError            the model cannot be written atomically
├── Int8AccuracyError        the int8 model is further from fp32 than the limit allows
├── RetrievalQualityError         the model loses more nDCG@10 on the retrieval set than the limit allows
└── ParityError             the written model does not match the reference; has the report
"""

from __future__ import annotations

from collections.abc import Sequence

from ..client.manifest import ParityReport, ScoreParityReport

KEYS_SHOWN = 8


class ExportError(Exception):
    """Base class of all exceptions of the exporter."""


class SourceError(ExportError):
    """A checkpoint, adapter or file does not exist or cannot be read."""


class UnsupportedCheckpointError(ExportError):
    """The checkpoint has a setting that this project does not support."""


class AdapterMismatchError(ExportError):
    """An adapter does not match its base model."""


class ModelExistsError(ExportError):
    """The target already exists."""


class StagingError(ExportError):
    """The target cannot be written atomically."""


class Int8AccuracyError(ExportError):
    """The int8 model is further from fp32 than the limit allows."""


class RetrievalQualityError(ExportError):
    """The written model loses more nDCG@10 than the limit allows."""


class ParityError(ExportError):
    """The written model does not match the reference."""

    def __init__(self, message: str, report: ParityReport | ScoreParityReport) -> None:
        super().__init__(message)
        self.report = report


def list_keys(keys: Sequence[str]) -> str:
    """Return the first keys in sorted order as text, and how many more there are."""
    shown = ", ".join(sorted(keys)[:KEYS_SHOWN])
    more = len(keys) - KEYS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
