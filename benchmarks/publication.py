"""The records that the README and docs/performance.md show."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from .model_shape import SHAPES
from .record import Record
from .record_file import fingerprint, read_record, record_files

_WHOLE = dataclasses.asdict(SHAPES["0.6b"])


class MissingRecordError(Exception):
    """There is no record with the required results; the message says how to make one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRecord:
    """A record and its file."""

    file: Path
    record: Record

    @property
    def source(self) -> str:
        """Identity of the record in files made from it."""
        return fingerprint(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The records of the pages."""

    whole: tuple[PublishedRecord, ...]
    """Comparisons on the whole 0.6B shape, one record for each processor, the newest first."""
    complete: PublishedRecord
    """The newest record that compares contenders, loads a server and measures quality; of any model."""


def read_publication(folder: Path) -> Publication:
    """Select the records in `folder`.

    Of several records of the whole shape on one processor, the one with the most workloads is selected, and of those
    the newest.

    Raises:
        MissingRecordError: if there is none of a kind.
    """
    found = [PublishedRecord(file=file, record=read_record(file)) for file in reversed(record_files(folder))]
    complete = [each for each in found if each.record.comparisons and each.record.loads and each.record.quality]
    if not complete:
        raise MissingRecordError("there is no record of a complete run yet; run: python -m benchmarks run")
    whole: dict[str, PublishedRecord] = {}
    for each in found:
        processor = each.record.environment.cpu
        if compares_whole_model(each.record) and (
            processor not in whole or _workloads(each) > _workloads(whole[processor])
        ):
            whole[processor] = each
    if not whole:
        raise MissingRecordError(
            "there is no record of the whole model yet; run: python -m benchmarks run --model 0.6b --part passes"
        )
    newest_first = sorted(whole.values(), key=lambda each: each.record.started, reverse=True)
    return Publication(whole=tuple(newest_first), complete=complete[0])


def compares_whole_model(record: Record) -> bool:
    """Return whether `record` compares programs on the whole 0.6B shape, and not on a GPU, which has its own page."""
    shapes = [comparison.workload.shape for comparison in record.comparisons]
    return record.environment.gpu is None and bool(shapes) and all(shape == _WHOLE for shape in shapes)


def _workloads(published: PublishedRecord) -> int:
    return len(published.record.comparisons)
