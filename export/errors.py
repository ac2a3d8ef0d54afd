"""What the exporter raises.

ExportError
├── SourceMissing            a checkpoint, adapter or file that is not there or cannot be read
├── UnsupportedCheckpoint    the checkpoint says something of itself that this project does not do
├── AdapterMismatch          an adapter that does not fit its base; lists the keys
├── ModelExists              the name is taken in the repository
├── StagingFailed            the repository cannot be written to in one piece
├── Int8ErrorTooLarge        8 bits change the answers by more than --max-int8-error allows
├── NdcgLossTooLarge         a retrieval set's nDCG@10 falls by more than --max-ndcg-loss allows
└── ParityFailed             the written model does not answer as the reference; carries the report
"""

from __future__ import annotations

from collections.abc import Sequence

from ..client.contract import ParityReport, ScoreParityReport

KEYS_SHOWN = 8


class ExportError(Exception):
    """Root of every error that the exporter raises."""


class SourceMissing(ExportError):
    """A checkpoint, adapter or file is not there or cannot be read."""


class UnsupportedCheckpoint(ExportError):
    """The checkpoint asks for something that this project does not do."""


class AdapterMismatch(ExportError):
    """An adapter and its base do not fit together."""


class ModelExists(ExportError):
    """The target name is taken."""


class StagingFailed(ExportError):
    """The target cannot be written to in one piece."""


class Int8ErrorTooLarge(ExportError):
    """The int8 model is further from fp32 than asked for."""


class NdcgLossTooLarge(ExportError):
    """The written model finds less of a retrieval set than asked for."""


class ParityFailed(ExportError):
    """The written model does not answer as the reference does."""

    def __init__(self, message: str, report: ParityReport | ScoreParityReport) -> None:
        super().__init__(message)
        self.report = report


def list_keys(keys: Sequence[str]) -> str:
    """The first keys of a sorted list as text, and how many more there are."""
    shown = ", ".join(sorted(keys)[:KEYS_SHOWN])
    more = len(keys) - KEYS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
