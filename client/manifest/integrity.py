"""Verification of a model's files against the hashes in its manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import ManifestError
from .export_record import ExportRecord
from .folder import ModelFolder


def hash_model_files(folder: ModelFolder) -> dict[str, str]:
    """Return the SHA-256 of every file in `folder` except the manifest, in hexadecimal, by relative path."""
    files = sorted(file for file in folder.path.rglob("*") if file.is_file() and file != folder.manifest)
    return {file.relative_to(folder.path).as_posix(): _hash(file) for file in files}


def find_changed_files(folder: ModelFolder, record: ExportRecord) -> list[str]:
    """Return `PATH is missing` or `PATH has changed` for each file that differs from its hash in `record`.

    Files without a hash in the record, such as other versions of the model, are ignored.
    """
    known = {} if record.provenance is None else record.provenance.files
    found = []
    for path, digest in sorted(known.items()):
        file = folder.path / path
        if not file.is_file():
            found.append(f"{path} is missing")
        elif _hash(file) != digest:
            found.append(f"{path} has changed")
    return found


def find_unverified_files(folder: ModelFolder) -> list[str]:
    """Return the differences between `folder` and the hashes in its manifest; one line of text for each.

    Unlike for `find_changed_files`, a manifest that is missing or has no hashes is a difference.
    """
    try:
        record = ExportRecord.from_json(folder.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [f"{folder.manifest.name} is missing"]
    except (ManifestError, UnicodeDecodeError) as exc:
        return [f"{folder.manifest.name}: {exc}"]
    if record.provenance is None:
        return [f"{folder.manifest.name} has no hashes of files"]
    return find_changed_files(folder, record)


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
