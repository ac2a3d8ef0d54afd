"""Whether an adapter was trained on the checkpoint that it is merged into.

Shapes do not show it, because every fine-tuned version of a model has the same. The names that the files state do, and
the weights themselves where the adapter's base is a folder on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .adapter import Adapter
from .checkpoint import WEIGHT_FILES, Checkpoint
from .weights import hash_files

_HUB_CACHE = "models--"
"""Begins the folder of a model in the cache of the hub: `models--owner--name/snapshots/COMMIT`."""


def other_bases(checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> dict[str, str]:
    """Return adapter → the model that it was trained on, for adapters of models other than `checkpoint`.

    Models of the same name are taken for the same, whoever publishes them and wherever they are stored, unless both
    folders exist on this machine and have different weights.
    """
    found = ((str(adapter.reference.source), _other_base(checkpoint, adapter)) for adapter in adapters)
    return {adapter: base for adapter, base in found if base is not None}


def describe_other_base(adapter: str, base: str, checkpoint: Checkpoint) -> str:
    """Return a note about an entry of `other_bases`."""
    return (
        f"adapter {adapter} was trained on {base!r} and is merged into {str(checkpoint.source)!r}: make sure that both "
        "are the same model, because no other check shows a wrong base of the same shape"
    )


def _other_base(checkpoint: Checkpoint, adapter: Adapter) -> str | None:
    base = adapter.base_name
    if base is None or not _model_name(base):
        return None
    weights, expected = _weight_files(Path(base).expanduser()), _weight_files(checkpoint.directory)
    if weights:
        return None if _same_files(weights, expected) else base
    own = (checkpoint.source.location, str(checkpoint.root.resolve()), checkpoint.raw_config.get("_name_or_path"))
    if _model_name(base) not in {_model_name(name) for name in own if isinstance(name, str)}:
        return base
    revision, requested = adapter.settings.get("revision"), checkpoint.source.revision
    return f"{base}@{revision}" if revision and requested and revision != requested else None


def _model_name(text: str) -> str:
    """Return the name of a model without its owner or folder, from a hub id or a path; empty for `.`."""
    parts = [part for part in re.split(r"[/\\]", text) if part.strip(". ")]
    cached = [part for part in parts if part.startswith(_HUB_CACHE)]
    name = cached[-1].rsplit("--", 1)[-1] if cached else (parts or [""])[-1]
    return name.lower()


def _weight_files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.glob(WEIGHT_FILES) if file.is_file())
    except (OSError, ValueError):
        # a name that is no path on this machine
        return []


def _same_files(one: list[Path], other: list[Path]) -> bool:
    if [file.resolve() for file in one] == [file.resolve() for file in other]:
        return True
    sizes = [[(file.name, file.stat().st_size) for file in files] for files in (one, other)]
    return sizes[0] == sizes[1] and hash_files(one) == hash_files(other)
