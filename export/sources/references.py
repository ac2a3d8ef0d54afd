"""References to checkpoints and adapters, their text form, and their local folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceError

_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(//(?P<folder>[\w.-]+(/[\w.-]+)*))?")
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*adapter_model.bin", "*Dense/pytorch_model.bin")
"""Patterns match files in subfolders as well. Pickled adapters are rejected with a command that needs the file."""


@dataclass(frozen=True, slots=True)
class SourceReference:
    """A checkpoint: a local folder, or a hub id with optional folder and revision. `str` returns the text form."""

    location: str
    """Path, or hub id with an optional subfolder: `owner/name//folder`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""

    @classmethod
    def parse(cls, text: str) -> SourceReference:
        """Parse the path of an existing folder, or `ID[@REVISION]`."""
        if Path(text).expanduser().is_dir():
            return cls(text)
        location, _, revision = text.rpartition("@")
        return cls(location, revision) if location and revision else cls(text)

    @property
    def public_name(self) -> str:
        """The hub id with its revision, or the name of the local folder without its path."""
        local = Path(self.location).expanduser()
        return local.resolve().name if local.is_dir() else str(self)

    def __str__(self) -> str:
        return f"{self.location}@{self.revision}" if self.revision else self.location


@dataclass(frozen=True, slots=True)
class AdapterReference:
    """An adapter and its weight. `str` returns the text form."""

    source: SourceReference
    """Local folder or hub id of the adapter."""
    weight: float = 1.0
    """Factor of the adapter's change."""

    @classmethod
    def parse(cls, text: str) -> AdapterReference:
        """Parse `DIR[=WEIGHT]` or `ID[@REVISION][=WEIGHT]`.

        Raises:
            SourceError: The weight is not a number.
        """
        return cls(*_parse_weighted(text, "adapter"))

    def __str__(self) -> str:
        return _weighted_text(self.source, self.weight)


@dataclass(frozen=True, slots=True)
class WeightedCheckpoint:
    """A checkpoint to be fused and its weight. `str` returns the text form."""

    source: SourceReference
    """Local folder or hub id of the checkpoint."""
    weight: float = 1.0
    """Share in the fused checkpoint, relative to the other weights."""

    @classmethod
    def parse(cls, text: str) -> WeightedCheckpoint:
        """Parse `DIR[=WEIGHT]` or `ID[@REVISION][=WEIGHT]`.

        Raises:
            SourceError: The weight is not a number.
        """
        return cls(*_parse_weighted(text, "checkpoint"))

    def __str__(self) -> str:
        return _weighted_text(self.source, self.weight)


def _parse_weighted(text: str, kind: str) -> tuple[SourceReference, float]:
    location, sign, weight = text.rpartition("=")
    if not sign or Path(text).is_dir():
        return SourceReference.parse(text), 1.0
    try:
        return SourceReference.parse(location), float(weight)
    except ValueError as exc:
        raise SourceError(f"{kind} '{text}': '{weight}' is not a number; write DIR or DIR=WEIGHT") from exc


def _weighted_text(source: SourceReference, weight: float) -> str:
    return str(source) if weight == 1.0 else f"{source}={weight:g}"


def resolve_directory(source: SourceReference) -> Path:
    """Return the local folder of `source`, downloaded from the hub if necessary; raise SourceError if that fails."""
    local = Path(source.location).expanduser()
    if local.exists():
        return local
    hub = _HUB_ID.fullmatch(source.location)
    if hub is None or {".", ".."} & set(source.location.split("/")):
        raise SourceError(f"'{source}' is neither a directory nor a hub id of the form owner/name[//folder][@revision]")
    folder = hub["folder"]
    patterns = [f"{folder}/{pattern}" if folder else pattern for pattern in _HUB_FILES]
    from huggingface_hub import snapshot_download

    try:
        fetched = snapshot_download(hub["repository"], revision=source.revision, allow_patterns=patterns)
    except Exception as exc:
        reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        raise SourceError(
            f"'{source}' is not a local directory and could not be downloaded from the hub: {reason}"
        ) from exc
    found = Path(fetched) / (folder or "")
    if not found.is_dir():
        raise SourceError(f"'{source}': {hub['repository']} has no folder {folder} on the hub")
    return found
