"""What a measurement depends on besides the code: machine, threads and package versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("numpy", "onnx-ir", "onnxruntime", "tokenizers", "torch", "transformers")
_ONNXRUNTIME = "onnxruntime"
_CUDA_PROVIDER = "CUDAExecutionProvider"
_GENERATION = {"family": "cpu family", "model": "model", "stepping": "stepping"}
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU and its software."""

    name: str
    memory_bytes: int
    driver: str
    cuda: str
    """CUDA version that torch was built for."""
    providers: str
    """Execution providers of ONNX Runtime, in order of preference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Machine, threads and versions; results from different environments are never compared."""

    cpu: str
    cores: int
    threads: int
    system: str
    python: str
    packages: Mapping[str, str]
    gpu: Gpu | None = None
    """GPU that was measured, None for runs on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeState:
    """State of the checkout that was measured."""

    commit: str | None
    """None outside a git checkout."""
    modified: bool
    """Whether files other than records differed from the commit."""


def read_environment(threads: int, gpu: Gpu | None = None) -> Environment:
    """Describe this machine and the `gpu` that is measured, if any."""
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
    """Return package versions by name; ONNX Runtime's are those of the module, see `_imported_runtime`.

    Raises:
        PackageNotFoundError: if one is not installed.
    """
    found: dict[str, str] = {}
    for name in packages:
        found |= _imported_runtime() if name == _ONNXRUNTIME else {name: version(name)}
    return found


def _imported_runtime() -> dict[str, str]:
    """Return the version of the ONNX Runtime that is imported, as `onnxruntime-gpu` if it is built for CUDA.

    Both packages contain the module `onnxruntime`, and the metadata of one may be found with the module of the other.
    """
    try:
        import onnxruntime
    except ImportError as exc:
        raise PackageNotFoundError(_ONNXRUNTIME) from exc
    built_for_cuda = _CUDA_PROVIDER in onnxruntime.get_available_providers()
    return {f"{_ONNXRUNTIME}-gpu" if built_for_cuda else _ONNXRUNTIME: str(onnxruntime.__version__)}


def read_code_state() -> CodeState:
    """Read the commit of the checkout and whether it is modified."""
    commit = _git("rev-parse", "--verify", "HEAD")
    changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return CodeState(commit=commit or None, modified=changed != "")


def load_average() -> float:
    """Return the one-minute load average."""
    return round(os.getloadavg()[0], 2)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    return describe_cpu(info.read_text(encoding="utf-8") if info.is_file() else "")


def describe_cpu(info: str) -> str:
    """Return name, family, model and stepping of the first processor in `info`, the text of /proc/cpuinfo.

    The name alone is ambiguous: virtual machines report one name for several generations of processors.
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
