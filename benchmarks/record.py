"""One run as data: raw samples with machine, versions and workloads; the only reader and writer of the format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environment import CodeState, Environment

SCHEMA_VERSION = 2
_READABLE = (1, 2)


class RecordInvalid(Exception):
    """A file that is no record, or one of another schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One pass over the workload, seconds."""

    wall_s: float
    cpu_s: float
    """Processor time of all threads; less disturbed by other processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What one setting took when the best was looked for, before the timed rounds."""

    setting: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One contender's raw samples, in the order of the repetitions."""

    program: str
    setting: str
    versions: Mapping[str, str]
    min_cosine: float
    """Of its vectors to the reference's, before timing."""
    company_cosine: float | None = None
    """Smallest cosine between a text's vector alone and in the company of the workload; None where not measured."""
    warmups: tuple[Sample, ...]
    samples: tuple[Sample, ...]
    """`passes` in a row for each repetition."""
    scan: tuple[Scan, ...] = ()
    """Every setting tried, the chosen one among them."""

    @property
    def walls_s(self) -> list[float]:
        """Wall-clock seconds of each pass."""
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
    passes: int = 1
    """Passes over the texts in each repetition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Every contender on one workload, side by side."""

    workload: WorkloadFacts
    entries: tuple[Entry, ...]
    absent: Mapping[str, str]
    """Program → why it was not measured."""
    products: ProductGauge
    profile: Mapping[str, Mapping[str, int]]
    """Program → operator → microseconds of one pass."""
    load_average: tuple[float, ...]
    """At each repetition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run."""

    schema_version: int = SCHEMA_VERSION
    started: str
    """UTC, ISO 8601."""
    code: CodeState
    environment: Environment
    rounds: tuple[Round, ...]


def write_record(record: Record, file: Path) -> None:
    """Writes `file`; an existing one is never overwritten (FileExistsError)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as opened:
        opened.write(json.dumps(dataclasses.asdict(record), indent=1) + "\n")


def read_record(file: Path) -> Record:
    """The record in `file`, of this schema or an older one; raises RecordInvalid."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        found = raw["schema_version"]
        if found not in _READABLE:
            raise RecordInvalid(f"{file.name}: schema {found}, this version reads {SCHEMA_VERSION}; run anew")
        return _parse(_from_first_schema(raw) if found == 1 else raw)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise RecordInvalid(f"{file.name}: no benchmark record ({exc!r})") from exc


def _from_first_schema(raw: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 held one workload at the top level."""
    inner = {field.name for field in dataclasses.fields(Round)}
    outer = {name: value for name, value in raw.items() if name not in inner}
    return {**outer, "schema_version": SCHEMA_VERSION, "rounds": [{name: raw[name] for name in inner}]}


def _parse(raw: dict[str, Any]) -> Record:
    fields = dict(raw)
    fields["code"] = CodeState(**raw["code"])
    fields["environment"] = Environment(**raw["environment"])
    fields["rounds"] = tuple(_round(each) for each in raw["rounds"])
    return Record(**fields)


def _round(raw: dict[str, Any]) -> Round:
    fields = dict(raw)
    fields["workload"] = WorkloadFacts(**raw["workload"])
    fields["entries"] = tuple(_entry(entry) for entry in raw["entries"])
    products = raw["products"]
    fields["products"] = ProductGauge(flops=products["flops"], samples=_samples(products["samples"]))
    fields["load_average"] = tuple(raw["load_average"])
    return Round(**fields)


def _entry(raw: dict[str, Any]) -> Entry:
    fields = {**raw, "warmups": _samples(raw["warmups"]), "samples": _samples(raw["samples"])}
    scan = (Scan(setting=each["setting"], samples=_samples(each["samples"])) for each in raw.get("scan", ()))
    return Entry(**{**fields, "scan": tuple(scan)})


def _samples(raw: list[dict[str, float]]) -> tuple[Sample, ...]:
    return tuple(Sample(**sample) for sample in raw)
