"""Reads and writes records as JSON files, compressed by xz; records that are not compressed are read too."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import lzma
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from .record import Record

SUFFIX = ".json.xz"
"""End of the name of a new record; loads have thousands of samples, which take an eighth of the space."""
_COMPRESSED, _PLAIN = ".xz", ".json"


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
        staged.write_bytes(_to_bytes(record, self.file))
        staged.replace(self.file)


def record_files(folder: Path) -> list[Path]:
    """Return the records in `folder`, oldest first."""
    return sorted(file for suffix in (SUFFIX, _PLAIN) for file in folder.glob(f"*{suffix}"))


def read_json(file: Path) -> bytes:
    """Return the JSON text of a record, decompressed if its name says that it is compressed.

    Raises:
        OSError: if it cannot be read.
        lzma.LZMAError, EOFError: if it is not a complete xz file.
    """
    content = file.read_bytes()
    return lzma.decompress(content) if file.suffix == _COMPRESSED else content


def fingerprint(file: Path) -> str:
    """Return the name and SHA-256 of a record, to identify the source of files generated from it."""
    return f"{file.name} sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"


def write_record(record: Record, file: Path) -> None:
    """Write `record` to a new file.

    Raises:
        FileExistsError: if `file` exists.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as opened:
        opened.write(_to_bytes(record, file))


def read_record(file: Path) -> Record:
    """Read and validate a record.

    Raises:
        InvalidRecordError: if the file cannot be read or a field is missing, unknown or invalid.
    """
    try:
        return _adapter().validate_json(read_json(file), strict=True)
    except OSError as exc:
        raise InvalidRecordError(f"{file.name}: {exc.strerror}") from exc
    except (lzma.LZMAError, EOFError) as exc:
        raise InvalidRecordError(f"{file.name}: not a complete xz file") from exc
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


def _to_bytes(record: Record, file: Path) -> bytes:
    text = json.dumps(dataclasses.asdict(record), separators=(",", ":")) + "\n"
    return lzma.compress(text.encode()) if file.suffix == _COMPRESSED else text.encode()
