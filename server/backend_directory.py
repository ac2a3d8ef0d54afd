"""The directory that Triton loads backends from: the Python backend, and this project's `onnxruntime` backend."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from .environment import ServerEnvironment, file_lock

_PACKAGE = "qwen3_triton_backend"
# the stub imports `model.py`, with only its folder and site-packages on sys.path
_ENTRY = f"from {_PACKAGE}.model import TritonPythonModel as TritonPythonModel\n"
_SOURCES = Path(__file__).parent / "backend"


def ensure_backend_directory(environment: ServerEnvironment) -> Path:
    """Return the backend directory for this version of the backend; create it if it is missing.

    Its name contains a hash of the backend's source, and it is never modified after its creation, so that servers of
    different versions of the package can run at the same time.
    """
    sources = sorted(_SOURCES.glob("*.py"))
    digest = hashlib.sha256(_ENTRY.encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    directory = environment.path / f"backends-{digest.hexdigest()[:12]}"
    if directory.is_dir():
        return directory
    with file_lock(environment.path.with_suffix(".lock")):
        if not directory.is_dir():
            unfinished = directory.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            _copy_python_backend(environment, unfinished / "python")
            _copy_onnxruntime_backend(sources, unfinished / "onnxruntime")
            unfinished.rename(directory)
    return directory


def _copy_python_backend(environment: ServerEnvironment, target: Path) -> None:
    """Copy the wheel's Python backend and the stub for this Python; Triton rejects symlinks out of the directory."""
    target.mkdir(parents=True)
    stub = f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    for source in [*(environment.triton / "backends" / "python").iterdir(), environment.triton / stub]:
        if source.is_file():
            _link_or_copy(source, target / source.name)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _copy_onnxruntime_backend(sources: list[Path], target: Path) -> None:
    package = target / _PACKAGE
    package.mkdir(parents=True)
    for source in sources:
        shutil.copy2(source, package / source.name)
    (target / "model.py").write_text(_ENTRY)
