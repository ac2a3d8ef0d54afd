"""What a figure depends on besides the code: machine, threads and versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("numpy", "onnx-ir", "onnxruntime", "tokenizers", "torch", "transformers")
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Figures of different environments are never compared."""

    cpu: str
    cores: int
    threads: int
    system: str
    python: str
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeState:
    """The commit that was measured, None before the first one or outside of git."""

    commit: str | None
    modified: bool


def read_environment(threads: int) -> Environment:
    """The present machine."""
    return Environment(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        threads=threads,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
    )


def read_code_state() -> CodeState:
    """Commit of the checkout, and whether files differ from it."""
    commit = _git("rev-parse", "--verify", "HEAD")
    return CodeState(commit=commit or None, modified=_git("status", "--porcelain") != "")


def load_average() -> float:
    """Processes that ran or waited to run, mean of the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
