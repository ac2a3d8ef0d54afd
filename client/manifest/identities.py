"""Which files a model came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerIdentity:
    """Which `tokenizer.json` turns text into the ids that the model was trained on."""

    sha256: str
    origin: str
    """Hub id or directory that the file came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a model came about."""

    tool_version: str
    """Of qwen3-triton."""
    created: str
    """When the export ended: ISO 8601, UTC."""
    packages: Mapping[str, str]
    """Version of Python and of each library that computed or wrote something, by name."""
    options: Mapping[str, object]
    """Of the export, by name."""
    files: Mapping[str, str]
    """SHA-256 of every other file in the model's folder, in hexadecimal, by path relative to the folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceIdentity:
    """A checkpoint or adapter that went into the model."""

    reference: str
    """As given on the command line: directory or hub id, with `@revision` where given."""
    sha256: str
    """Of its weight files' digests, in the order of their names."""
    weight: float = 1.0
    """What an adapter was multiplied with."""
