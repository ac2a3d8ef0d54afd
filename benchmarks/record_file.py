"""Reads and writes records as JSON files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from .record import Record

_FLAT_LIST = re.compile(r"\[\n[^\[\]{}]*\]")


class InvalidRecordError(Exception):
    """The file is not a benchmark record, or has an unsupported schema version."""


class RecordFile:
    """The file of a run in progress, complete after every save, so that an interrupted run loses nothing."""

    def __init__(self, file: Path, *, resuming: bool = False) -> None:
        """Open the file of a new run, or of an interrupted one if `resuming`."""
        self.file = file
        self._replaceable = resuming

    def save(self, record: Record) -> None:
        """Replace the previously saved record.

        Raises:
            FileExistsError: if the file belongs to another run.
        """
        if not self._replaceable:
            write_record(record, self.file)
            self._replaceable = True
            return
        staged = self.file.with_suffix(".newer")
        staged.write_text(_to_json(record), encoding="utf-8")
        staged.replace(self.file)


def fingerprint(file: Path) -> str:
    """Return the name and SHA-256 of a record, to identify the source of files generated from it."""
    return f"{file.name} sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"


def write_record(record: Record, file: Path) -> None:
    """Write `record` to a new file.

    Raises:
        FileExistsError: if `file` exists.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as opened:
        opened.write(_to_json(record))


def read_record(file: Path) -> Record:
    """Read and validate a record.

    Raises:
        InvalidRecordError: if the file cannot be read or a field is missing, unknown or invalid.
    """
    try:
        return _adapter().validate_json(file.read_bytes(), strict=True)
    except OSError as exc:
        raise InvalidRecordError(f"{file.name}: {exc.strerror}") from exc
    except ValidationError as exc:
        raise InvalidRecordError(f"{file.name}: {_summarize(exc)}") from exc


@functools.cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def _summarize(error: ValidationError) -> str:
    """Return the first problem as `field: problem`, and the number of further ones."""
    first, *others = error.errors(include_url=False, include_input=False)
    place = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {message}{more}" if place else f"{message}{more}"


def _to_json(record: Record) -> str:
    text = json.dumps(dataclasses.asdict(record), indent=1)
    # a list of numbers is kept on one line
    return _FLAT_LIST.sub(lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"
