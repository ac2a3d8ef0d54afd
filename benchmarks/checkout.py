"""The project's own packages out of this checkout, on machines that it is not installed on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_PACKAGE = "qwen3_triton"
_ROOT = Path(__file__).resolve().parent.parent


def make_importable() -> None:
    """Lets `qwen3_triton.export` be found as the folder `export/` where the package is not installed."""
    if importlib.util.find_spec(_PACKAGE) is None:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(_ROOT)]
        sys.modules[_PACKAGE] = package
