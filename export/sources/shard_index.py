"""The index of a checkpoint in several weight files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import SourceError, list_keys
from .config import read_json

INDEX_FILE = "model.safetensors.index.json"
_SINGLE_FILE = "model.safetensors"


def check_index(directory: Path, stored: Collection[str]) -> None:
    """Check that the weight files in `directory` are those of its index, if it has one.

    Without a file that the index names, transformers does not load the checkpoint; without a tensor, it draws random
    weights. An index beside a single weight file has no effect, as in transformers.

    Args:
        directory: The folder.
        stored: Names of the tensors in its weight files.

    Raises:
        SourceError: The index cannot be read, or names a file or a tensor that is not there.
    """
    index = directory / INDEX_FILE
    if not index.exists() or (directory / _SINGLE_FILE).exists():
        return
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise SourceError(f"{index}: has no weight_map from tensors to files")
    missing = {file for file in files.values() if not (directory / file).exists()}
    if missing:
        raise SourceError(f"{index}: names {list_keys([*missing])}, which is not there; is the download complete?")
    lacking = [f"{name} of {file}" for name, file in files.items() if name not in stored]
    if lacking:
        raise SourceError(f"{index}: names {list_keys(lacking)}, which is not there; is the download complete?")
