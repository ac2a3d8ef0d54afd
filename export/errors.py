"""Exceptions of the exporter.

ExportError
├── SourceMissing            a checkpoint, adapter or file does not exist or cannot be read
├── UnsupportedCheckpoint    the checkpoint has a setting that this project does not support
├── AdapterMismatch          an adapter does not match its base model; lists the keys
├── ModelExists              the repository already has a model of that name
├── StagingFailed            the model cannot be written atomically
├── Int8ErrorTooLarge        the int8 model is further from fp32 than the limit allows
├── NdcgLossTooLarge         the model loses more nDCG@10 on the retrieval set than the limit allows
└── ParityFailed             the written model does not match the reference; has the report
"""

from __future__ import annotations

from collections.abc import Sequence

from ..client.contract import ParityReport, ScoreParityReport

KEYS_SHOWN = 8


class ExportError(Exception):
    """Base class of all exceptions of the exporter."""


class SourceMissing(ExportError):
    """A checkpoint, adapter or file does not exist or cannot be read."""


class UnsupportedCheckpoint(ExportError):
    """The checkpoint has a setting that this project does not support."""


class AdapterMismatch(ExportError):
    """An adapter does not match its base model."""


class ModelExists(ExportError):
    """The target already exists."""


class StagingFailed(ExportError):
    """The target cannot be written atomically."""


class Int8ErrorTooLarge(ExportError):
    """The int8 model is further from fp32 than the limit allows."""


class NdcgLossTooLarge(ExportError):
    """The written model loses more nDCG@10 than the limit allows."""


class ParityFailed(ExportError):
    """The written model does not match the reference."""

    def __init__(self, message: str, report: ParityReport | ScoreParityReport) -> None:
        super().__init__(message)
        self.report = report


def list_keys(keys: Sequence[str]) -> str:
    """Return the first keys in sorted order as text, and how many more there are."""
    shown = ", ".join(sorted(keys)[:KEYS_SHOWN])
    more = len(keys) - KEYS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
