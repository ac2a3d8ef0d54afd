"""Record ↔ JSON file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from .environment import CodeState, Environment, Gpu
from .record import (
    SCHEMA_VERSION,
    CopyGauge,
    Entry,
    Growth,
    GrowthPoint,
    Load,
    ProductGauge,
    QualityScore,
    Record,
    Requests,
    Resumption,
    Round,
    Sample,
    Scan,
    TokenizerFacts,
    WorkloadFacts,
)

_READABLE = (1, 2)
_PLAIN_LIST = re.compile(r"\[\n[^\[\]{}]*\]")


class RecordInvalid(Exception):
    """A file that is no record, or one of another schema."""


class RecordFile:
    """A run's file while the run goes on: it is whole at any time, so that a run that is ended loses nothing."""

    def __init__(self, file: Path, *, begun: bool = False) -> None:
        """`begun` is for the file of a run that goes on."""
        self.file = file
        self._begun = begun

    def keep(self, record: Record) -> None:
        """Replaces what was kept before; a file of another run is never overwritten (FileExistsError)."""
        if not self._begun:
            write_record(record, self.file)
            self._begun = True
            return
        newer = self.file.with_suffix(".newer")
        newer.write_text(_render(record), encoding="utf-8")
        newer.replace(self.file)


def identify(file: Path) -> str:
    """Name and content of a record, for what is made from it."""
    return f"{file.name} sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"


def write_record(record: Record, file: Path) -> None:
    """Writes `file`; an existing one is never overwritten (FileExistsError)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as opened:
        opened.write(_render(record))


def _render(record: Record) -> str:
    text = json.dumps(dataclasses.asdict(record), indent=1)
    # a list of figures is one line
    return _PLAIN_LIST.sub(lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


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
    """Schema 1 held one workload at the top level, and one gauge of matrix products."""
    inner = {field.name for field in dataclasses.fields(Round)} & raw.keys()
    outer = {name: value for name, value in raw.items() if name not in inner}
    only = {**{name: raw[name] for name in inner}, "products": [raw["products"]]}
    return {**outer, "schema_version": SCHEMA_VERSION, "rounds": [only]}


def _parse(raw: dict[str, Any]) -> Record:
    fields = dict(raw)
    fields["code"] = CodeState(**raw["code"])
    fields["resumed"] = tuple(
        Resumption(started=each["started"], code=CodeState(**each["code"])) for each in raw.get("resumed", ())
    )
    gpu = raw["environment"].get("gpu")
    fields["environment"] = Environment(**{**raw["environment"], "gpu": None if gpu is None else Gpu(**gpu)})
    fields["rounds"] = tuple(_round(each) for each in raw["rounds"])
    tokenizer = raw.get("served_tokenizer")
    fields["served_tokenizer"] = None if tokenizer is None else TokenizerFacts(**tokenizer)
    fields["loads"] = tuple(_load(each) for each in raw.get("loads", ()))
    fields["quality"] = tuple(QualityScore(**each) for each in raw.get("quality", ()))
    fields["growth"] = tuple(_growth(each) for each in raw.get("growth", ()))
    return Record(**fields)


def _round(raw: dict[str, Any]) -> Round:
    fields = dict(raw)
    fields["workload"] = WorkloadFacts(**raw["workload"])
    fields["entries"] = tuple(_entry(entry) for entry in raw["entries"])
    fields["products"] = tuple(
        ProductGauge(**{**each, "samples": _samples(each["samples"])}) for each in raw["products"]
    )
    fields["load_average"] = tuple(raw["load_average"])
    fields["copies"] = tuple(
        CopyGauge(**{**each, "samples": _samples(each["samples"])}) for each in raw.get("copies", ())
    )
    return Round(**fields)


def _entry(raw: dict[str, Any]) -> Entry:
    fields = {**raw, "warmups": _samples(raw["warmups"]), "samples": _samples(raw["samples"])}
    scan = (
        Scan(setting=each["setting"], samples=_samples(each["samples"]), rejected=each.get("rejected", ""))
        for each in raw.get("scan", ())
    )
    return Entry(**{**fields, "scan": tuple(scan)})


def _load(raw: dict[str, Any]) -> Load:
    fields = {**raw, "tokens": tuple(raw["tokens"]), "warmups": _requests(raw["warmups"])}
    return Load(**{**fields, "repetitions": tuple(_requests(each) for each in raw["repetitions"])})


def _growth(raw: dict[str, Any]) -> Growth:
    points = (GrowthPoint(size=each["size"], samples=_samples(each["samples"])) for each in raw["points"])
    return Growth(**{**raw, "points": tuple(points)})


def _requests(raw: dict[str, list[Any]]) -> Requests:
    return Requests(**{name: tuple(column) for name, column in raw.items()})


def _samples(raw: list[dict[str, float]]) -> tuple[Sample, ...]:
    return tuple(Sample(**sample) for sample in raw)
