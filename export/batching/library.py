"""The batching strategy library, built from `batch_strategy.c` and shipped for each processor architecture."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import ExportError
from ..options import ServerArchitecture

_HERE = Path(__file__).parent
SOURCE = _HERE / "batch_strategy.c"


def library_file(architecture: ServerArchitecture) -> Path:
    """Return the binary for servers of `architecture`; raise ExportError if this installation has none."""
    file = _HERE / architecture / "batchstrategy.so"
    if not file.is_file():
        raise ExportError(f"{file} is missing; reinstall qwen3-triton, or export without a token budget")
    return file


def copy_library(architecture: ServerArchitecture, target: Path) -> None:
    """Copy the library for servers of `architecture` to the file `target`, readable by any user."""
    shutil.copyfile(library_file(architecture), target)
    target.chmod(0o755)
