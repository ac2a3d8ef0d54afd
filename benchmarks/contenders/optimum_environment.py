"""An environment of optimum's own, since it needs an older transformers than this project runs on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .contender import CannotRun

TORCH = "torch==2.13.0"
PINS = (TORCH, "optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "onnxruntime==1.23.2")
_TIMEOUT_S = 1800
_PATH = re.compile(r"(?:\w+://|(?<![\w.])/)\S+")
_MARK = "pins.json"


class OptimumEnvironment:
    """A virtual environment with `PINS` installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, say: Callable[[str], None]) -> None:
        """Builds it where it is missing or has other pins; raises CannotRun."""
        mark = self._folder / _MARK
        if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == list(PINS):
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        say("  making optimum's environment")
        _run([sys.executable, "-m", "venv", str(self._folder)])
        # torch first and alone: its index is then the one that holds the CPU build
        for pins in ((TORCH,), PINS):
            say(f"  installing {', '.join(pins)}")
            require_no_cuda(self._would_install(pins))
            self.python("-m", "pip", "install", "--quiet", *pins)
        mark.write_text(json.dumps(PINS), encoding="utf-8")

    def python(self, *arguments: str) -> str:
        """Standard output of this environment's Python; raises CannotRun where it fails."""
        return _run([str(self._folder / "bin" / "python"), *arguments])

    def versions(self, packages: Sequence[str]) -> dict[str, str]:
        """Installed version of each package."""
        code = "import json, sys; from importlib.metadata import version as v; "
        code += "print(json.dumps({name: v(name) for name in sys.argv[1:]}))"
        found: dict[str, str] = json.loads(self.python("-c", code, *packages))
        return found

    def _would_install(self, pins: Sequence[str]) -> list[str]:
        report = self.python("-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", *pins)
        return [entry["metadata"]["name"] for entry in json.loads(report)["install"]]


def require_no_cuda(packages: Iterable[str]) -> None:
    """Raises CannotRun where one of `packages` belongs to CUDA."""
    cuda = sorted(name for name in packages if re.match(r"(nvidia|cuda|triton$)", name.lower()))
    if cuda:
        raise CannotRun(f"{TORCH} would bring CUDA ({', '.join(cuda[:3])}, …); configure an index with its CPU build")


def without_paths(text: str) -> str:
    """`text` with every absolute path and address replaced, for records that others read."""
    return _PATH.sub("<path>", text)


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except subprocess.CalledProcessError as exc:
        lines = [line for line in exc.stderr.splitlines() if line.strip()] or ["no message"]
        raise CannotRun(without_paths(lines[-1])[:200]) from exc
    except (subprocess.TimeoutExpired, OSError) as exc:
        raise CannotRun(type(exc).__name__) from exc
    return done.stdout
