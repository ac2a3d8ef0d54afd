"""The records that the README and docs/performance.md show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .model_shape import SHAPES
from .record import Comparison, Record
from .record_file import fingerprint, read_record, record_files
from .steps import workload_step
from .workload import STANDARD

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
class WholeModel:
    """Comparisons on the whole 0.6B shape on one processor; all programs of a workload were measured in one run."""

    records: tuple[PublishedRecord, ...]
    """The newest first, all with the same environment."""
    comparisons: tuple[Comparison, ...]
    """One for each workload."""

    @property
    def newest(self) -> PublishedRecord:
        """The newest record."""
        return self.records[0]

    @property
    def not_measured(self) -> dict[str, str]:
        """What no record has → reason."""
        shown = {workload_step(comparison.workload.name) for comparison in self.comparisons}
        missing = {step: reason for each in reversed(self.records) for step, reason in each.record.not_measured.items()}
        return {step: reason for step, reason in missing.items() if step not in shown}


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The records of the pages."""

    whole: tuple[WholeModel, ...]
    """One for each processor, that with the most workloads first, then the newest."""
    complete: PublishedRecord
    """The newest record that compares contenders, loads a server and measures quality; of any model."""
    client: PublishedRecord | None = None
    """The newest record with measurements of the clients; None if there is none."""


def read_publication(folder: Path) -> Publication:
    """Select the records in `folder`.

    The comparisons of the whole model on a processor are those of the newest environment, and of each workload the
    newest.

    Raises:
        MissingRecordError: if there is no complete record, or none of the whole model.
    """
    found = [PublishedRecord(file=file, record=read_record(file)) for file in reversed(record_files(folder))]
    newest_first = sorted(found, key=lambda each: each.record.started, reverse=True)
    complete = [each for each in newest_first if each.record.comparisons and each.record.loads and each.record.quality]
    if not complete:
        raise MissingRecordError("there is no record of a complete run yet; run: python -m benchmarks run")
    processors: dict[str, list[PublishedRecord]] = {}
    for each in newest_first:
        if compares_whole_model(each.record):
            of_processor = processors.setdefault(each.record.environment.cpu, [])
            if not of_processor or of_processor[0].record.environment == each.record.environment:
                of_processor.append(each)
    if not processors:
        raise MissingRecordError(
            "there is no record of the whole model yet; run: python -m benchmarks run --model 0.6b --part passes"
        )
    client = next((each for each in newest_first if each.record.client is not None), None)
    whole = sorted(map(_merge, processors.values()), key=lambda each: -len(each.comparisons))
    return Publication(whole=tuple(whole), complete=complete[0], client=client)


def compares_whole_model(record: Record) -> bool:
    """Return whether `record` compares programs on the whole 0.6B shape, and not on a GPU, which has its own page."""
    shapes = [comparison.workload.shape for comparison in record.comparisons]
    return record.environment.gpu is None and bool(shapes) and all(shape == _WHOLE for shape in shapes)


def _merge(newest_first: Sequence[PublishedRecord]) -> WholeModel:
    """Return the newest comparison of each workload, in the order of the standard workloads, and their records."""
    by_workload: dict[str, Comparison] = {}
    used: list[PublishedRecord] = []
    for each in newest_first:
        added = [comparison for comparison in each.record.comparisons if comparison.workload.name not in by_workload]
        by_workload |= {comparison.workload.name: comparison for comparison in added}
        used += [each] if added else []
    names = [name for name in dict.fromkeys((*STANDARD, *by_workload)) if name in by_workload]
    return WholeModel(records=tuple(used), comparisons=tuple(by_workload[name] for name in names))
