"""Identities of the files that a model was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerIdentity:
    """Identity of the `tokenizer.json` that a model was trained with."""

    sha256: str
    """SHA-256 of the file, in hexadecimal."""
    origin: str
    """Hub id that the file came from, or the name of a directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Versions, options and file hashes of an export."""

    tool_version: str
    """Version of qwen3-triton."""
    created: str
    """Time when the export finished, ISO 8601 in UTC."""
    packages: Mapping[str, str]
    """Versions of Python and of the libraries that took part in the export, by name."""
    options: Mapping[str, object]
    """Options of the export, by name."""
    files: Mapping[str, str]
    """SHA-256 of every other file in the model's folder, in hexadecimal, by path relative to the folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceIdentity:
    """Identity of a checkpoint, adapter or data set."""

    reference: str
    """Directory or hub id as given by the user, with `@revision` if there was one."""
    sha256: str
    """SHA-256 over the digests of its files in the order of their names, in hexadecimal."""
    weight: float = 1.0
    """Factor of an adapter; 1 for other sources."""
