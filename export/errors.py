"""Exceptions of the exporter.

ExportError
├── SourceError                 a checkpoint, adapter or file does not exist or cannot be read
├── UnsupportedCheckpointError  the checkpoint has a setting that is not supported
├── AdapterMismatchError        an adapter does not match its base model; lists the keys
├── FusionError                 checkpoints cannot be fused; lists their differences
├── ModelExistsError            the target already exists
├── UnknownVersionError         the repository does not have the model or its version
├── StagingError                the target cannot be written atomically
├── Int8AccuracyError           the int8 error exceeds the limit
├── RetrievalQualityError       the nDCG@10 loss exceeds the limit
└── ParityError                 the written model does not match the reference; has the report
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
    """The checkpoint has a setting that is not supported."""


class AdapterMismatchError(ExportError):
    """An adapter does not match its base model. The message lists the keys."""


class FusionError(ExportError):
    """Checkpoints cannot be fused. The message lists their differences."""


class ModelExistsError(ExportError):
    """The target already exists and overwriting was not requested."""


class UnknownVersionError(ExportError):
    """The repository does not have the model, or not this version of it."""


class StagingError(ExportError):
    """The target cannot be written atomically."""


class Int8AccuracyError(ExportError):
    """The error of the int8 model exceeds the limit."""


class WitnessError(ExportError):
    """A library that reads the sources by its own code gets other outputs than the reference."""


class RetrievalQualityError(ExportError):
    """The written model's loss of nDCG@10 exceeds the limit."""


class ParityError(ExportError):
    """The written model does not match the reference.

    Attributes:
        report: The measured deviations and their tolerances.
    """

    def __init__(self, message: str, report: ParityReport | ScoreParityReport) -> None:
        super().__init__(message)
        self.report = report


def list_keys(keys: Sequence[str]) -> str:
    """Format the first `keys` in sorted order, and the number of the others."""
    shown = ", ".join(sorted(keys)[:KEYS_SHOWN])
    more = len(keys) - KEYS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
