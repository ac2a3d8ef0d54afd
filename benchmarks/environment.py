"""What a figure depends on besides the code: machine, threads and versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("numpy", "onnx-ir", "onnxruntime", "tokenizers", "torch", "transformers")
_ON_GPUS = "-gpu"
"""What the same package is called where it was built for GPUs."""
_GENERATION = {"family": "cpu family", "model": "model", "stepping": "stepping"}
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU and what drives it."""

    name: str
    memory_bytes: int
    driver: str
    cuda: str
    """Version that torch was built for."""
    providers: str
    """Of ONNX Runtime, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Figures of different environments are never compared."""

    cpu: str
    cores: int
    threads: int
    system: str
    python: str
    packages: Mapping[str, str]
    gpu: Gpu | None = None
    """What a run for GPUs was measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeState:
    """The commit that was measured, None before the first one or outside of git."""

    commit: str | None
    modified: bool


def read_environment(threads: int, gpu: Gpu | None = None) -> Environment:
    """The present machine, with the `gpu` that a run is measured on."""
    return Environment(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        threads=threads,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=installed_versions(_PACKAGES),
        gpu=gpu,
    )


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions by the names under which the packages are installed: for `x` that is `x-gpu` on some machines."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name + _ON_GPUS] = version(name + _ON_GPUS)
    return found


def read_code_state() -> CodeState:
    """Commit of the checkout, and whether files other than records differ from it."""
    commit = _git("rev-parse", "--verify", "HEAD")
    changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return CodeState(commit=commit or None, modified=changed != "")


def load_average() -> float:
    """Processes that ran or waited to run, mean of the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    return describe_cpu(info.read_text(encoding="utf-8") if info.is_file() else "")


def describe_cpu(info: str) -> str:
    """The first processor of /proc/cpuinfo by name, family, model and stepping.

    Virtual machines call processors of different generations by one name.
    """
    first = info.partition("\n\n")[0].splitlines()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}
    name = fields.get("model name") or platform.processor() or "unknown"
    numbers = [f"{kind} {fields[key]}" for kind, key in _GENERATION.items() if key in fields]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
