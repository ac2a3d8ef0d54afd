"""One run as data: raw samples with machine, versions and workload; the only reader and writer of the format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environment import CodeState, Environment

SCHEMA_VERSION = 1


class RecordInvalid(Exception):
    """A file that is no record, or one of another schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One pass over the workload, seconds."""

    wall_s: float
    cpu_s: float
    """Processor time of all threads; less disturbed by other processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One contender's raw samples, in the order of the repetitions."""

    program: str
    setting: str
    versions: Mapping[str, str]
    min_cosine: float
    """Of its vectors to the reference's, before timing."""
    warmups: tuple[Sample, ...]
    samples: tuple[Sample, ...]

    @property
    def walls_s(self) -> list[float]:
        """Wall-clock seconds of each repetition."""
        return [sample.wall_s for sample in self.samples]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductGauge:
    """What the machine gives a layer's matrix products alone, timed between the contenders."""

    flops: int
    """Of one sample: multiplications and additions."""
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFacts:
    """The workload as it was run."""

    name: str
    seed: int
    texts: int
    tokens: int
    shortest: int
    longest: int
    shape: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run."""

    schema_version: int = SCHEMA_VERSION
    started: str
    """UTC, ISO 8601."""
    code: CodeState
    environment: Environment
    workload: WorkloadFacts
    entries: tuple[Entry, ...]
    absent: Mapping[str, str]
    """Program → why it was not measured."""
    products: ProductGauge
    profile: Mapping[str, Mapping[str, int]]
    """Program → operator → microseconds of one pass."""
    load_average: tuple[float, ...]
    """At each repetition."""


def write_record(record: Record, file: Path) -> None:
    """Writes `file`; an existing one is never overwritten (FileExistsError)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as opened:
        opened.write(json.dumps(dataclasses.asdict(record), indent=1) + "\n")


def read_record(file: Path) -> Record:
    """The record in `file`; raises RecordInvalid."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        found = raw["schema_version"]
        if found != SCHEMA_VERSION:
            raise RecordInvalid(f"{file.name}: schema {found}, this version reads {SCHEMA_VERSION}; run anew")
        return _parse(raw)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise RecordInvalid(f"{file.name}: no benchmark record ({exc!r})") from exc


def _parse(raw: dict[str, Any]) -> Record:
    fields = dict(raw)
    fields["code"] = CodeState(**raw["code"])
    fields["environment"] = Environment(**raw["environment"])
    fields["workload"] = WorkloadFacts(**raw["workload"])
    fields["entries"] = tuple(
        Entry(**{**entry, "warmups": _samples(entry["warmups"]), "samples": _samples(entry["samples"])})
        for entry in raw["entries"]
    )
    products = raw["products"]
    fields["products"] = ProductGauge(flops=products["flops"], samples=_samples(products["samples"]))
    fields["load_average"] = tuple(raw["load_average"])
    return Record(**fields)


def _samples(raw: list[dict[str, float]]) -> tuple[Sample, ...]:
    return tuple(Sample(**sample) for sample in raw)
